#include "meta.hpp"

namespace derain::gst {

#if GST_CHECK_VERSION(1, 20, 0)

namespace {
constexpr const char* name = "DerainMeta";
}

void register_meta() {
    const gchar* no_tags = nullptr;  // it depends on neither size nor memory, so that elements downstream copy it
    gst_meta_register_custom(name, &no_tags, nullptr, nullptr, nullptr);
}

void mark(GstBuffer& buffer, std::optional<Why> why) {
    GstCustomMeta* meta = gst_buffer_get_custom_meta(&buffer, name);  // of another `derain` upstream
    if (meta == nullptr) {
        meta = gst_buffer_add_custom_meta(&buffer, name);
    }
    GstStructure* fields = gst_custom_meta_get_structure(meta);
    gst_structure_set(fields, "derained", G_TYPE_BOOLEAN, why ? FALSE : TRUE, nullptr);
    gst_structure_remove_field(fields, "why");
    if (why) {
        gst_structure_set(fields, "why", G_TYPE_STRING, to_string(*why).data(), nullptr);
    }
}

#else

void register_meta() {}
void mark(GstBuffer&, std::optional<Why>) {}

#endif

}  // namespace derain::gst
