/* Derains a file of raw frames in the bundle's own pixels: derain_file BUNDLE ENGINE PRECISION IN.raw OUT.raw */
#include <derain/derain.h>
#include <stdio.h>
#include <stdlib.h>

static int fault(const char* what, const char* why) {
    (void)fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

/* Writes what is ready; waits `timeout_ms` for each frame. */
static derain_status write_ready(derain_stream* stream, int timeout_ms, FILE* out) {
    derain_frame frame = {.struct_size = sizeof frame};
    derain_status status = DERAIN_OK;
    while ((status = derain_receive(stream, timeout_ms, &frame)) == DERAIN_OK) {
        if (fwrite(frame.data, 1, frame.bytes, out) != frame.bytes) {
            fault("output", "cannot be written");
            return DERAIN_FAULT;
        }
        if (!frame.derained) (void)fprintf(stderr, "frame %llu is raw: %s\n", (unsigned long long)frame.id, frame.why);
    }
    return status;
}

static int derain(derain_stream* stream, FILE* in, FILE* out) {
    derain_format format = {.struct_size = sizeof format};
    if (derain_formats(stream, &format, NULL) != DERAIN_OK) return fault("formats", derain_error());
    unsigned char* bytes = malloc(format.bytes);
    if (bytes == NULL) return fault("memory", "none left");
    derain_status status = DERAIN_OK;
    while (status != DERAIN_FAULT && fread(bytes, 1, format.bytes, in) == format.bytes) {
        do { /* room comes when what is ready has been taken */
            status = derain_submit(stream, bytes, format.bytes, 0, 0, NULL);
            if (status != DERAIN_FAULT && write_ready(stream, status == DERAIN_OK ? 0 : 10, out) == DERAIN_FAULT) {
                status = DERAIN_FAULT;
            }
        } while (status == DERAIN_TIMEOUT);
    }
    free(bytes);
    if (status != DERAIN_FAULT) status = derain_finish(stream);
    if (status != DERAIN_FAULT) status = write_ready(stream, -1, out);
    return status == DERAIN_END ? 0 : fault("stream", derain_error());
}

int main(int count, char** words) {
    if (count != 6) return fault("usage", "derain_file BUNDLE ENGINE PRECISION IN.raw OUT.raw");
    const derain_options options = {.struct_size = sizeof options,
                                    .bundle = words[1],
                                    .engine = words[2],
                                    .precision = words[3],
                                    .policy = DERAIN_EVERY};
    derain_stream* stream = NULL;
    if (derain_open(&options, &stream) != DERAIN_OK) return fault(words[1], derain_error());
    FILE* in = fopen(words[4], "rb");
    FILE* out = in == NULL ? NULL : fopen(words[5], "wb");
    int failed = out == NULL ? fault(in == NULL ? words[4] : words[5], "cannot be opened") : derain(stream, in, out);
    if (in != NULL) (void)fclose(in);
    if (out != NULL && fclose(out) != 0) failed = fault(words[5], "cannot be written");
    derain_close(stream);
    return failed;
}
