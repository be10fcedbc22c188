#include "derain/stream/picture.hpp"

#include <utility>

namespace derain {

Picture Store::lend(Slot& slot) {
    slot.home = shared_from_this();
    return Picture(slot);
}

Picture::Picture(Store::Slot& slot) noexcept : slot_(&slot) { slot.holders.store(1, std::memory_order_relaxed); }

Picture::Picture(const Picture& other) noexcept : slot_(other.slot_) {
    if (slot_ != nullptr) {
        slot_->holders.fetch_add(1, std::memory_order_relaxed);
    }
}

Picture::~Picture() {
    // The last one to let go sees all that the others did with the bytes before it hands them on.
    if (slot_ != nullptr && slot_->holders.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const auto home = std::move(slot_->home);
        home->take_back(*slot_);
    }
}

std::span<const std::byte> Picture::bytes() const { return slot_ == nullptr ? std::span<std::byte>() : slot_->bytes; }

std::span<std::byte> Picture::writable() const { return slot_ == nullptr ? std::span<std::byte>() : slot_->bytes; }

std::shared_ptr<Pool> Pool::make(std::size_t bytes, std::size_t count) {
    std::shared_ptr<Pool> pool(new Pool(bytes));  // the constructor is private: a pool must be shared
    for (std::size_t made = 0; made < count; ++made) {
        pool->grow();
    }
    return pool;
}

Picture Pool::take() {
    const std::scoped_lock lock(mutex_);
    if (free_.empty()) {
        grow();
    }
    Slot& slot = *free_.back();
    free_.pop_back();
    return lend(slot);
}

std::size_t Pool::size() const {
    const std::scoped_lock lock(mutex_);
    return buffers_.size();
}

void Pool::grow() {
    buffers_.push_back(std::make_unique<Buffer>(bytes_));
    free_.reserve(buffers_.size());  // so that take_back never allocates
    free_.push_back(&buffers_.back()->slot);
}

void Pool::take_back(Slot& slot) noexcept {
    const std::scoped_lock lock(mutex_);
    free_.push_back(&slot);
}

}  // namespace derain
