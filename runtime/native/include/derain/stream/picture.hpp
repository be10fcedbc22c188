/// The bytes of pictures, lent and given back, so that a stream allocates nothing once it runs.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

namespace derain {

class Picture;

/// Where pictures' bytes live: a pool's memory, a camera's mapped buffers. It lives at least as long as its pictures.
class Store : public std::enable_shared_from_this<Store> {
   public:
    Store() = default;
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;
    virtual ~Store() = default;

   protected:
    struct Slot {
        std::span<std::byte> bytes;
        std::size_t index = 0;
        std::atomic<std::uint32_t> holders = 0;
        std::shared_ptr<Store> home = nullptr;  // while it is lent
    };

    /// The slot as a picture; when the last copy of it goes, on whatever thread, `take_back` gets the slot.
    Picture lend(Slot& slot);

   private:
    friend class Picture;
    virtual void take_back(Slot& slot) noexcept = 0;
};

/// A share in one picture's bytes; copies share them. An empty one has none.
class Picture {  // NOLINT(cppcoreguidelines-special-member-functions): one assignment, by value, copies and moves
   public:
    Picture() = default;
    Picture(const Picture& other) noexcept;
    Picture(Picture&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)) {}
    Picture& operator=(Picture other) noexcept {
        std::swap(slot_, other.slot_);
        return *this;
    }
    ~Picture();

    [[nodiscard]] std::span<const std::byte> bytes() const;
    /// For whoever makes the picture, before anybody else has a share in it.
    [[nodiscard]] std::span<std::byte> writable() const;
    [[nodiscard]] explicit operator bool() const { return slot_ != nullptr; }
    /// Whether both are shares in the same bytes.
    [[nodiscard]] bool operator==(const Picture& other) const = default;

   private:
    friend class Store;
    explicit Picture(Store::Slot& slot) noexcept;

    Store::Slot* slot_ = nullptr;  // its store's, which slot_->home keeps alive
};

/// Pictures of one size from memory taken in advance; it grows where all are in use, and gives none back to the system.
class Pool final : public Store {
   public:
    /// `count` pictures of `bytes` bytes each to begin with.
    static std::shared_ptr<Pool> make(std::size_t bytes, std::size_t count);

    /// A picture whose bytes are what its last user left in them.
    Picture take();
    /// How many there are, lent or not.
    [[nodiscard]] std::size_t size() const;

   private:
    struct alignas(64) Line {  // a cache line, and the alignment vector instructions like best
        std::array<std::byte, 64> bytes;
    };
    struct Buffer {
        explicit Buffer(std::size_t bytes) : lines((bytes + sizeof(Line) - 1) / sizeof(Line)) {
            slot.bytes = std::as_writable_bytes(std::span(lines)).first(bytes);
        }
        std::vector<Line> lines;
        Slot slot;
    };

    explicit Pool(std::size_t bytes) : bytes_(bytes) {}
    void grow();
    void take_back(Slot& slot) noexcept override;

    const std::size_t bytes_;
    mutable std::mutex mutex_;
    std::vector<std::unique_ptr<Buffer>> buffers_;
    std::vector<Slot*> free_;
};

}  // namespace derain
