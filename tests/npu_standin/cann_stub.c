/*
 * The functions of Ascend's runtime library CANN that have an outcome, over host memory.
 *
 * torch_npu reaches its hardware through C functions that CANN's libraries define. build.py compiles this file
 * with the headers that the wheel ships, so that the compiler checks each signature, and lets every other
 * function that the wheel asks for return 0, which means success.
 *
 * "Device memory" is host memory, copies are memmove, streams and events are handles whose work is always done.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "acl/acl.h"

enum { ALIGNMENT = 512, HANDLE_BYTES = 64 };

static const size_t MEMORY_BYTES = (size_t)16 << 30;

static _Thread_local int32_t current_device = 0;

static aclError allocate(void **pointer, size_t size)
{
    return posix_memalign(pointer, ALIGNMENT, size ? size : ALIGNMENT);
}

static aclError make_handle(void **handle)
{
    *handle = calloc(1, HANDLE_BYTES);
    return *handle ? 0 : 1;
}

static aclError release(void *pointer)
{
    free(pointer);
    return 0;
}

/* Devices */

aclError aclrtGetDeviceCount(uint32_t *count)
{
    const char *wanted = getenv("NPU_STANDIN_DEVICES");
    *count = wanted ? (uint32_t)atoi(wanted) : 1;
    return 0;
}

aclError aclrtGetDevice(int32_t *device)
{
    *device = current_device;
    return 0;
}

aclError aclrtSetDevice(int32_t device)
{
    current_device = device;
    return 0;
}

const char *aclrtGetSocName(void)
{
    return "Ascend910B1";
}

aclError aclrtDeviceCanAccessPeer(int32_t *can, int32_t device, int32_t peer)
{
    *can = device != peer;
    return 0;
}

aclError aclrtGetPrimaryCtxState(int32_t device, uint32_t *flags, int32_t *active)
{
    if (flags) {
        *flags = 0;
    }
    *active = device == current_device;
    return 0;
}

aclError aclrtGetCurrentContext(aclrtContext *context)
{
    static char only_context;
    *context = &only_context;
    return 0;
}

aclError aclrtGetSysParamOpt(aclSysParamOpt option, int64_t *value)
{
    *value = 0;
    return 0;
}

aclError aclrtCtxGetSysParamOpt(aclSysParamOpt option, int64_t *value)
{
    *value = 0;
    return 0;
}

aclError aclGetDeviceCapability(uint32_t device, aclDeviceInfo info, int64_t *value)
{
    *value = 0;
    return 0;
}

const char *aclGetRecentErrMsg(void)
{
    return "the NPU stand-in has no such function";
}

/* Memory */

aclError aclrtMalloc(void **pointer, size_t size, aclrtMemMallocPolicy policy)
{
    return allocate(pointer, size);
}

aclError aclrtMallocAlign32(void **pointer, size_t size, aclrtMemMallocPolicy policy)
{
    return allocate(pointer, size);
}

aclError aclrtMallocHost(void **pointer, size_t size)
{
    return allocate(pointer, size);
}

aclError aclrtFree(void *pointer)
{
    return release(pointer);
}

aclError aclrtFreeHost(void *pointer)
{
    return release(pointer);
}

aclError aclrtGetMemInfo(aclrtMemAttr kind, size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = *total_bytes = MEMORY_BYTES;
    return 0;
}

aclError aclrtMemcpy(void *to, size_t room, const void *from, size_t size, aclrtMemcpyKind kind)
{
    memmove(to, from, size);
    return 0;
}

aclError aclrtMemcpyAsync(
    void *to, size_t room, const void *from, size_t size, aclrtMemcpyKind kind, aclrtStream stream)
{
    memmove(to, from, size);
    return 0;
}

aclError aclrtMemset(void *pointer, size_t room, int32_t value, size_t size)
{
    memset(pointer, value, size);
    return 0;
}

aclError aclrtMemsetAsync(void *pointer, size_t room, int32_t value, size_t size, aclrtStream stream)
{
    memset(pointer, value, size);
    return 0;
}

/* Streams and events: work is done when it is asked for */

aclError aclrtCreateStream(aclrtStream *stream)
{
    return make_handle(stream);
}

aclError aclrtCreateStreamWithConfig(aclrtStream *stream, uint32_t priority, uint32_t flags)
{
    return make_handle(stream);
}

aclError aclrtDestroyStream(aclrtStream stream)
{
    return release(stream);
}

aclError aclrtDestroyStreamForce(aclrtStream stream)
{
    return release(stream);
}

aclError aclrtStreamQuery(aclrtStream stream, aclrtStreamStatus *status)
{
    *status = ACL_STREAM_STATUS_COMPLETE;
    return 0;
}

aclError aclrtStreamGetId(aclrtStream stream, int32_t *id)
{
    *id = 0;
    return 0;
}

aclError aclrtCreateEventWithFlag(aclrtEvent *event, uint32_t flags)
{
    return make_handle(event);
}

aclError aclrtCreateEventExWithFlag(aclrtEvent *event, uint32_t flags)
{
    return make_handle(event);
}

aclError aclrtDestroyEvent(aclrtEvent event)
{
    return release(event);
}

aclError aclrtQueryEventStatus(aclrtEvent event, aclrtEventRecordedStatus *status)
{
    *status = ACL_EVENT_RECORDED_STATUS_COMPLETE;
    return 0;
}

aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream)
{
    return clock_gettime(CLOCK_MONOTONIC, event);
}

aclError aclrtEventElapsedTime(float *milliseconds, aclrtEvent start, aclrtEvent end)
{
    const struct timespec *from = start, *to = end;
    *milliseconds = (float)(1e3 * (double)(to->tv_sec - from->tv_sec) + 1e-6 * (double)(to->tv_nsec - from->tv_nsec));
    return 0;
}
