/// What is to be done however a block ends.
#pragma once

#include <utility>

namespace derain {

/// Calls `work`, which must not throw, at the end of the block.
template <typename Work>
class Finally {
   public:
    explicit Finally(Work work) : work_(std::move(work)) {}
    Finally(const Finally&) = delete;
    Finally& operator=(const Finally&) = delete;
    ~Finally() { work_(); }

   private:
    Work work_;
};

}  // namespace derain
