/// Counts every allocation of a program: counted_new.cpp, linked into it, replaces operator new.
#pragma once

namespace derain::testing {

/// Allocations since the program's start, on whatever thread.
long allocations();

}  // namespace derain::testing
