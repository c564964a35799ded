/*
 * Counts the calls to the operating system that touch one folder, and lets one of them go wrong.
 *
 * What it is: a library for LD_PRELOAD, told what to do by `shim.py`.  A call is known by a label, "name path", with the
 * path below the folder and every long run of hexadecimal digits as "*" (names of temporary files are random).  The same
 * label may come many times; the trap counts.
 *
 * What it is not: a disk that loses power.  fsync counts and can fail, but is not carried out: what was written outlives
 * a process that dies, and the rounds are quick.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

/* As `traps.Way`. */
enum way { ERROR = 1, LOST = 2, DEATH = 3, DEATH_AFTER = 4 };
/* As `traps.DIED`. */
#define DIED 137
#define HEX_RUN 16

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char site[PATH_MAX];
static size_t site_length;
static char trap[PATH_MAX];
static long at, seen, sprung;
static int way, fault;
static char *labels;
static size_t labels_length, labels_room;
static volatile int listening;

void shim_listen(int yes) { listening = yes; }

void shim_begin(const char *folder) {
    site_length = strlen(strncpy(site, folder, sizeof site - 1));
    trap[0] = 0;
    at = seen = sprung = 0;
    labels_length = 0;
    listening = 1;
}

void shim_arm(const char *label, long occurrence, int how, int error) {
    strncpy(trap, label, sizeof trap - 1);
    at = occurrence;
    way = how;
    fault = error;
}

long shim_sprung(void) { return sprung; }

/* All labels so far, one on each line. */
const char *shim_labels(void) { return labels_length ? labels : ""; }

static void remember(const char *label) {
    size_t length = strlen(label);
    if (labels_length + length + 2 > labels_room) {
        labels_room = 2 * labels_room + length + 65536;
        labels = realloc(labels, labels_room);
        if (!labels) abort();
    }
    memcpy(labels + labels_length, label, length);
    labels_length += length;
    labels[labels_length++] = '\n';
    labels[labels_length] = 0;
}

static void write_label(char *label, size_t room, const char *call, const char *path) {
    size_t end = (size_t)snprintf(label, room, "%s ", call);
    while (*path && end + 2 < room) {
        size_t run = strspn(path, "0123456789abcdef");
        if (run >= HEX_RUN) {
            label[end++] = '*';
            path += run;
        } else {
            size_t count = run ? run : 1;
            while (count-- && end + 2 < room) label[end++] = *path++;
        }
    }
    label[end] = 0;
}

/* What is to go wrong with this call, 0 for nothing. */
static int due(const char *call, const char *path) {
    if (!listening || !path || strncmp(path, site, site_length) || path[site_length] != '/') return 0;
    char label[PATH_MAX + 32];
    write_label(label, sizeof label, call, path + site_length + 1);
    pthread_mutex_lock(&lock);
    remember(label);
    int found = !strcmp(label, trap) && ++seen == at ? way : 0;
    sprung += found != 0;
    pthread_mutex_unlock(&lock);
    if (found == DEATH) _exit(DIED);
    return found;
}

static int due_fd(const char *call, int fd) {
    if (!listening) return 0;
    char link[40], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return due(call, path);
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* Around the real call, with `found` of `due`. */
#define CARRY_OUT(type, action) \
    if (found == ERROR) { errno = fault; return -1; } \
    type result = (action); \
    if (found == DEATH_AFTER) _exit(DIED); \
    if (found == LOST) { errno = fault; return -1; } \
    return result

#define ON_PATH(name, call, path, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        int found = due(call, path); \
        CARRY_OUT(int, real arguments); \
    }

#define ON_FD(type, name, call, fd, parameters, arguments) \
    type name parameters { \
        REAL(name); \
        int found = due_fd(call, fd); \
        CARRY_OUT(type, real arguments); \
    }

static int closed(int fd) {
    if (fd >= 0) close(fd);
    return -1;
}

#define ON_OPEN(name, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { \
            va_list more; \
            va_start(more, flags); \
            mode = va_arg(more, mode_t); \
            va_end(more); \
        } \
        int found = due(flags & O_CREAT ? "create" : "open", path); \
        if (found == ERROR) { errno = fault; return -1; } \
        int result = real arguments; \
        if (found == DEATH_AFTER) _exit(DIED); \
        if (found == LOST) { result = closed(result); errno = fault; } \
        return result; \
    }

ON_OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
ON_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
ON_OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
ON_OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))

ON_FD(ssize_t, read, "read", fd, (int fd, void *to, size_t n), (fd, to, n))
ON_FD(ssize_t, pread, "read", fd, (int fd, void *to, size_t n, off_t o), (fd, to, n, o))
ON_FD(ssize_t, pread64, "read", fd, (int fd, void *to, size_t n, off64_t o), (fd, to, n, o))
ON_FD(ssize_t, write, "write", fd, (int fd, const void *from, size_t n), (fd, from, n))
ON_FD(ssize_t, pwrite, "write", fd, (int fd, const void *from, size_t n, off_t o), (fd, from, n, o))
ON_FD(ssize_t, pwrite64, "write", fd, (int fd, const void *from, size_t n, off64_t o), (fd, from, n, o))
ON_FD(ssize_t, copy_file_range, "copy", out, (int in, off64_t *oi, int out, off64_t *oo, size_t n, unsigned f),
      (in, oi, out, oo, n, f))
ON_FD(ssize_t, sendfile, "copy", out, (int out, int in, off_t *o, size_t n), (out, in, o, n))
ON_FD(ssize_t, sendfile64, "copy", out, (int out, int in, off64_t *o, size_t n), (out, in, o, n))
ON_FD(int, ftruncate, "truncate", fd, (int fd, off_t size), (fd, size))
ON_FD(int, ftruncate64, "truncate", fd, (int fd, off64_t size), (fd, size))
ON_FD(int, fchmod, "chmod", fd, (int fd, mode_t mode), (fd, mode))

/* Not carried out, see above. */
#define ON_SYNC(name) \
    int name(int fd) { \
        int found = due_fd("fsync", fd); \
        CARRY_OUT(int, 0); \
    }
ON_SYNC(fsync)
ON_SYNC(fdatasync)

ON_PATH(rename, "rename", to, (const char *from, const char *to), (from, to))
ON_PATH(link, "link", to, (const char *from, const char *to), (from, to))
ON_PATH(linkat, "link", to, (int a, const char *from, int b, const char *to, int f), (a, from, b, to, f))
ON_PATH(unlink, "unlink", path, (const char *path), (path))
ON_PATH(unlinkat, "unlink", path, (int folder, const char *path, int f), (folder, path, f))
ON_PATH(mkdir, "mkdir", path, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, "mkdir", path, (int folder, const char *path, mode_t mode), (folder, path, mode))
ON_PATH(rmdir, "rmdir", path, (const char *path), (path))
ON_PATH(chmod, "chmod", path, (const char *path, mode_t mode), (path, mode))
ON_PATH(fchmodat, "chmod", path, (int folder, const char *path, mode_t mode, int f), (folder, path, mode, f))
