#include <openvino/openvino.hpp>

#include "derain/engine.hpp"

namespace derain {

namespace {

constexpr const char* engine_name = "openvino";

/// OpenVINO's exceptions as ours.
template <typename Work>
auto told(const std::string& what, Work work) {
    try {
        return work();
    } catch (const ov::Exception& error) {
        throw Error(what + ": " + error.what());
    }
}

ov::Shape shape_of(const FrameSpec& spec) {
    const auto sizes = spec.shape();
    return {sizes.begin(), sizes.end()};
}

/// A graph on the CPU, one frame at a time, in the caller's memory.
class OpenVino final : public Engine {
   public:
    OpenVino(const Bundle& bundle, Precision precision, const EngineOptions& options)
        : Engine(engine_name, bundle, precision), threads_(options.threads) {}

   protected:
    void do_open() override {
        const std::string graph = bundle().graph(precision()).string();
        told(graph + ": OpenVINO cannot load it", [&] {
            ov::Core core;
            const auto model = core.read_model(graph);
            check(graph, model->inputs(), input());
            check(graph, model->outputs(), output());
            compiled_ = core.compile_model(model, "CPU", settings());
            request_ = compiled_.create_infer_request();
        });
    }

    void do_infer(std::span<const std::byte> frame, std::span<std::byte> clean) override {
        told("engine openvino", [&] {
            if (frame.data() != frame_) {
                // OpenVINO only reads an input; its constructor for memory that is const came later than its API 2.0.
                auto* bytes = const_cast<std::byte*>(frame.data());  // NOLINT(cppcoreguidelines-pro-type-const-cast)
                request_.set_input_tensor(ov::Tensor(ov::element::u8, shape_of(input()), bytes));
                frame_ = frame.data();
            }
            if (clean.data() != clean_) {
                request_.set_output_tensor(ov::Tensor(ov::element::u8, shape_of(output()), clean.data()));
                clean_ = clean.data();
            }
            request_.infer();
        });
    }

    void do_close() override {
        request_ = {};
        compiled_ = {};
        frame_ = nullptr;
        clean_ = nullptr;
    }

   private:
    [[nodiscard]] ov::AnyMap settings() const {
        ov::AnyMap settings{ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY), ov::hint::num_requests(1)};
        if (threads_ > 0) {
            settings.insert(ov::inference_num_threads(threads_));
        }
        // Left alone, OpenVINO computes in BF16 where the CPU can, whatever the graph's precision: other pixels than
        // those that export verified and calibration measured.
        settings.insert(ov::hint::inference_precision(ov::element::f32));
        // Its low-precision pass computes a convolution over a quantized concatenation wrongly (2026.4: daiam-nano
        // comes out at 28 dB against FP32, its graph has 50 dB). The key is internal to the CPU's plugin, which refuses
        // keys it does not know: a release without it opens no INT8 graph rather than a wrong one.
        if (precision() == Precision::int8) {
            settings.insert({"LP_TRANSFORMS_MODE", "NO"});
        }
        return settings;
    }

    template <typename Ports>
    static void check(const std::string& graph, const Ports& ports, const FrameSpec& spec) {
        const bool agree = ports.size() == 1 && ports.front().get_element_type() == ov::element::u8 &&
                           ports.front().get_names().contains(spec.tensor) &&
                           ports.front().get_partial_shape() == ov::PartialShape(shape_of(spec));
        if (agree) {
            return;
        }
        std::string seen;
        for (const auto& port : ports) {
            seen += port.get_any_name() + " " + port.get_element_type().to_string() + " " +
                    port.get_partial_shape().to_string() + " ";
        }
        throw Error(graph + ": has " + seen + "where the manifest says " + spec.tensor + " u8 " +
                    ov::PartialShape(shape_of(spec)).to_string() + ": export the bundle again");
    }

    int threads_;
    ov::CompiledModel compiled_;
    ov::InferRequest request_;
    const std::byte* frame_ = nullptr;
    const std::byte* clean_ = nullptr;
};

const bool registered = [] {
    register_engine(engine_name, [](const Bundle& bundle, Precision precision, const EngineOptions& options) {
        return std::make_unique<OpenVino>(bundle, precision, options);
    });
    return true;
}();

}  // namespace

}  // namespace derain
