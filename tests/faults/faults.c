/* Kills, half writes, errors and hangs at the k-th call that changes files below a root; for LD_PRELOAD.
 *
 * A process arms it after a fork. Calls are counted in the order in which the process makes them; what lies
 * outside the root is left alone. A log, where one is given, gets a line for each call: its name and path.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum mode { COUNT, KILL, HALF, ONCE, LASTING, HANG };

static struct {
    char root[PATH_MAX];
    size_t length;
    enum mode mode;
    long at;
    int error, log;
    atomic_long calls;
} armed;

void faults_arm(const char *root, int mode, long at, int error, int log) {
    strncpy(armed.root, root, PATH_MAX - 1);
    armed.mode = mode;
    armed.at = at;
    armed.error = error;
    armed.log = log;
    armed.calls = 0;
    armed.length = strlen(armed.root);
}

static int below(const char *path) {
    return strncmp(path, armed.root, armed.length) == 0 && (path[armed.length] == '/' || !path[armed.length]);
}

static int place(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    path[size > 0 ? size : 0] = 0;
    return size > 0;
}

static int place_at(int folder, const char *name, char *path) {
    char base[PATH_MAX];
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return 1;
    }
    if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !place(folder, base)) return 0;
    return snprintf(path, PATH_MAX, "%s/%s", base, name) < PATH_MAX;
}

/* What is to happen to this call: 0 nothing, 1 half of it and the end, -1 the error in errno. */
static int fault(const char *call, const char *path, int takes_space) {
    if (!armed.length || !below(path)) return 0;
    long now = ++armed.calls;
    if (armed.log >= 0) {
        char line[PATH_MAX + 32];
        int size = snprintf(line, sizeof line, "%s %s\n", call, path + armed.length);
        syscall(SYS_write, armed.log, line, size);
    }
    if (armed.mode == COUNT || now < armed.at) return 0;
    if (now > armed.at && (armed.mode != LASTING || (armed.error == ENOSPC && !takes_space))) return 0;
    if (armed.mode == HALF) return 1;
    if (armed.mode == HANG)
        for (;;) pause();
    if (armed.mode == KILL)
        for (;;) kill(getpid(), SIGKILL);
    errno = armed.error;
    return -1;
}

#define REAL(name) static typeof(&name) real; if (!real) real = (typeof(&name))dlsym(RTLD_NEXT, #name)
#define FAULT_AT(call, folder, name, space)                                                                  \
    char path[PATH_MAX];                                                                                     \
    if (armed.length && place_at(folder, name, path)) {                                                      \
        int what = fault(call, path, space);                                                                 \
        if (what < 0) return -1;                                                                             \
        if (what > 0) for (;;) kill(getpid(), SIGKILL);                                                      \
    }
#define FAULT_FD(call, fd, space)                                                                            \
    char path[PATH_MAX];                                                                                     \
    int what = armed.length && place(fd, path) ? fault(call, path, space) : 0;                               \
    if (what < 0) return -1;
#define END_AFTER(half)                                                                                      \
    if (what > 0) {                                                                                          \
        half;                                                                                                \
        for (;;) kill(getpid(), SIGKILL);                                                                    \
    }

#define OPEN(name)                                                                                           \
    int name(const char *file, int flags, ...) {                                                             \
        REAL(name);                                                                                          \
        va_list rest;                                                                                        \
        va_start(rest, flags);                                                                               \
        mode_t mode = va_arg(rest, mode_t);                                                                  \
        va_end(rest);                                                                                        \
        if (flags & (O_CREAT | O_TRUNC) && (flags & (O_TRUNC | O_EXCL) || access(file, F_OK))) {             \
            FAULT_AT("open", AT_FDCWD, file, 1)                                                              \
        }                                                                                                    \
        return real(file, flags, mode);                                                                      \
    }
#define OPENAT(name)                                                                                         \
    int name(int folder, const char *file, int flags, ...) {                                                 \
        REAL(name);                                                                                          \
        va_list rest;                                                                                        \
        va_start(rest, flags);                                                                               \
        mode_t mode = va_arg(rest, mode_t);                                                                  \
        va_end(rest);                                                                                        \
        if (flags & (O_CREAT | O_TRUNC) && (flags & (O_TRUNC | O_EXCL) || faccessat(folder, file, F_OK, 0))) { \
            FAULT_AT("open", folder, file, 1)                                                                \
        }                                                                                                    \
        return real(folder, file, flags, mode);                                                              \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    FAULT_FD("write", fd, 1)
    END_AFTER(real(fd, data, size / 2))
    return real(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    FAULT_FD("write", fd, 1)
    END_AFTER(syscall(SYS_write, fd, parts[0].iov_base, parts[0].iov_len / 2))
    return real(fd, parts, count);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    FAULT_FD("write", fd, 1)
    END_AFTER(real(fd, data, size / 2, at))
    return real(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    FAULT_FD("write", fd, 1)
    END_AFTER(real(fd, data, size / 2, at))
    return real(fd, data, size, at);
}
ssize_t sendfile(int out, int in, off_t *at, size_t size) {
    REAL(sendfile);
    FAULT_FD("write", out, 1)
    END_AFTER(real(out, in, at, size / 2))
    return real(out, in, at, size);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) {
    REAL(sendfile64);
    FAULT_FD("write", out, 1)
    END_AFTER(real(out, in, at, size / 2))
    return real(out, in, at, size);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    REAL(copy_file_range);
    FAULT_FD("write", out, 1)
    END_AFTER(real(in, from, out, to, size / 2, flags))
    return real(in, from, out, to, size, flags);
}

#define ON_FD(name, space, arguments, pass, ...)                                                             \
    int name arguments {                                                                                     \
        REAL(name);                                                                                          \
        FAULT_FD(#name, fd, space)                                                                           \
        END_AFTER()                                                                                          \
        return real pass;                                                                                    \
    }
ON_FD(ftruncate, 1, (int fd, off_t size), (fd, size))
ON_FD(ftruncate64, 1, (int fd, off64_t size), (fd, size))
ON_FD(fsync, 1, (int fd), (fd))
ON_FD(fdatasync, 1, (int fd), (fd))

/* What would change nothing is no such call: a folder that is there already, a file that is gone. */
#define ON_PATH(name, folder, file, space, changes, arguments, pass)                                         \
    int name arguments {                                                                                     \
        REAL(name);                                                                                          \
        if (changes) {                                                                                       \
            FAULT_AT(#name, folder, file, space)                                                             \
        }                                                                                                    \
        return real pass;                                                                                    \
    }
#define THERE(folder) !faccessat(folder, file, F_OK, AT_SYMLINK_NOFOLLOW)
ON_PATH(mkdir, AT_FDCWD, file, 1, !THERE(AT_FDCWD), (const char *file, mode_t mode), (file, mode))
ON_PATH(mkdirat, folder, file, 1, !THERE(folder), (int folder, const char *file, mode_t mode), (folder, file, mode))
ON_PATH(rmdir, AT_FDCWD, file, 0, THERE(AT_FDCWD), (const char *file), (file))
ON_PATH(unlink, AT_FDCWD, file, 0, THERE(AT_FDCWD), (const char *file), (file))
ON_PATH(unlinkat, folder, file, 0, THERE(folder), (int folder, const char *file, int flags), (folder, file, flags))
ON_PATH(rename, AT_FDCWD, to, 0, 1, (const char *from, const char *to), (from, to))
ON_PATH(renameat, folder, to, 0, 1, (int other, const char *from, int folder, const char *to), (other, from, folder, to))
ON_PATH(link, AT_FDCWD, to, 1, 1, (const char *from, const char *to), (from, to))
ON_PATH(linkat, folder, to, 1, 1, (int other, const char *from, int folder, const char *to, int flags),
        (other, from, folder, to, flags))
ON_PATH(symlink, AT_FDCWD, to, 1, 1, (const char *from, const char *to), (from, to))
ON_PATH(symlinkat, folder, to, 1, 1, (const char *from, int folder, const char *to), (from, folder, to))
ON_PATH(truncate, AT_FDCWD, file, 1, 1, (const char *file, off_t size), (file, size))
