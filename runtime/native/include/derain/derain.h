/**
 * derain's C interface: camera frames in, clean frames out, the raw frame as the answer to every fault.
 *
 *     derain_open, then derain_submit and derain_receive as long as there are frames, then derain_close
 *
 * Every function returns a derain_status and never throws or aborts; where it is DERAIN_FAULT, derain_error() tells why
 * in one line. Every struct begins with its own size, which the caller sets (`x.struct_size = sizeof x`): a newer
 * library reads and writes no more of it than the caller knows, and members added later are 0 for an older caller.
 *
 * Threads: streams are independent of each other. One thread may submit to a stream while another receives from it, and
 * any may ask for statistics; derain_close waits for nobody, so end the other calls first. A stream runs three threads
 * of its own.
 */
#ifndef DERAIN_DERAIN_H
#define DERAIN_DERAIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What a call came to. */
typedef enum derain_status {
    DERAIN_OK = 0,
    DERAIN_TIMEOUT = 1, /**< nothing happened in time: no room, or no frame */
    DERAIN_END = 2,     /**< derain_finish was called, and the last frame has been received */
    DERAIN_FAULT = -1   /**< see derain_error() */
} derain_status;

/** What becomes of a frame that arrives while the one before it still waits for the engine. */
typedef enum derain_policy {
    DERAIN_LATEST = 0, /**< for a camera: the newest frame is what matters, older ones are dropped and counted */
    DERAIN_EVERY = 1   /**< for a clip: nothing is dropped, derain_submit waits for room */
} derain_policy;

/**
 * A warning, one line; called by the stream's threads, also inside derain_open, but one at a time: until it returns,
 * the next one waits. It must not throw.
 */
typedef void (*derain_warn)(void* user, const char* line);

typedef struct derain_options {
    size_t struct_size;
    const char* bundle;    /**< the bundle's folder */
    const char* engine;    /**< "openvino", "tensorrt" or "tensorrt-rtx" */
    const char* precision; /**< "fp32", "fp16", "int8" or "fp8" */
    int32_t policy;        /**< a derain_policy */
    int32_t threads;       /**< of a CPU engine; 0: all that this process may use */
    double deadline_ms;    /**< from a frame's capture: later, its raw bytes go out; 0: no deadline */
    derain_warn warn;      /**< or NULL */
    void* user;            /**< for `warn` */
} derain_options;

/** A frame's format; rows have no padding. The strings live as long as the stream. */
typedef struct derain_format {
    size_t struct_size;
    int32_t width;
    int32_t height;
    const char* pixels; /**< "bgr8", "rgb8", "nv12" or "uyvy" */
    const char* matrix; /**< "bt601" or "bt709" */
    const char* range;  /**< "full" or "limited" */
    size_t bytes;       /**< of one frame */
} derain_format;

/** A frame on its way out. Times are CLOCK_MONOTONIC in ns. */
typedef struct derain_frame {
    size_t struct_size;
    uint64_t id;         /**< as derain_submit gave it */
    const uint8_t* data; /**< valid until the next derain_receive or derain_close of this stream */
    size_t bytes;
    int32_t derained; /**< 1: clean; 0: the raw frame went out */
    const char* why;  /**< why it is raw, in words; NULL where it is clean. Lives for ever. */
    int64_t captured_ns;
    int64_t inference_start_ns; /**< 0 where raw */
    int64_t inference_end_ns;   /**< 0 where raw */
    int64_t ready_ns;           /**< when it could be received */
} derain_frame;

/** In milliseconds; 0 before the first frame. */
typedef struct derain_percentiles {
    double p50, p90, p99, p999, max;
} derain_percentiles;

/** A stream so far: frames = presented + dropped + those still inside. */
typedef struct derain_statistics {
    size_t struct_size;
    uint64_t frames;          /**< submitted */
    uint64_t presented;       /**< ready to be received */
    uint64_t passed_through;  /**< of these, raw */
    uint64_t dropped;         /**< a newer frame came before the engine was free */
    uint64_t deadline_misses; /**< raw because the result, or one before it, was not there in time */
    uint64_t engine_faults;   /**< raw because the engine failed on it */
    uint64_t unreceived;      /**< presented, but a newer one came before anybody received it (DERAIN_LATEST) */
    derain_percentiles inference;
    derain_percentiles capture_to_present; /**< from capture until it could be received */
} derain_statistics;

typedef struct derain_stream derain_stream;

/** The library's version, as "0.1.0". */
const char* derain_version(void);

/** Why the last call on this thread came to DERAIN_FAULT: value seen, value expected, the mend. */
const char* derain_error(void);

/** Check the bundle, open and warm up the engine, start the stream. `*stream` is NULL unless this is DERAIN_OK. */
derain_status derain_open(const derain_options* options, derain_stream** stream);

/** What derain_submit takes (`input`) and derain_receive gives (`output`); either may be NULL. */
derain_status derain_formats(const derain_stream* stream, derain_format* input, derain_format* output);

/**
 * Copy one frame of `input.bytes` bytes into the stream.
 *
 * `captured_ns` is when its bytes were complete, CLOCK_MONOTONIC; 0: now. A time yet to come or more than 10 s old is
 * of another clock: it is taken for now, and the first is warned of. `*id` (or NULL) counts from 0. With DERAIN_EVERY
 * this waits up to `timeout_ms` for room, then is DERAIN_TIMEOUT; a negative `timeout_ms` waits for ever.
 */
derain_status derain_submit(derain_stream* stream, const void* data, size_t bytes, int64_t captured_ns,
                            int32_t timeout_ms, uint64_t* id);

/** Wait up to `timeout_ms` for the next frame, in the order of submission; a negative one waits for ever. */
derain_status derain_receive(derain_stream* stream, int32_t timeout_ms, derain_frame* frame);

/** No frame will follow: derain_receive gives those inside, then DERAIN_END. */
derain_status derain_finish(derain_stream* stream);

derain_status derain_get_statistics(const derain_stream* stream, derain_statistics* statistics);

/** Stop and release everything; frames inside are lost. An engine that hangs is left behind after 10 s. NULL is
 * allowed. From inside `warn` it returns at once and the stream ends on a thread of its own: `user` must outlive that.
 */
void derain_close(derain_stream* stream);

#ifdef __cplusplus
}
#endif

#endif
