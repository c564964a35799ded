/* Loaded before the C library (LD_PRELOAD): notes what each fsync makes durable, and lets chosen ones fail.
 *
 * Below the folder POWERCUT_ROOT a file is durable as it was when its fsync began, and a name when the folder was synced.
 * Each such moment is one record in the journal POWERCUT_STATE/journal; `powercut.py` tells what the records mean, and
 * builds the disk as it is when the power is cut after any of them.  Nothing reaches the real disk: that costs time only.
 *
 * POWERCUT_STATE/fail holds "COUNT TEXT": the COUNTth sync from now on of a path that contains TEXT fails with EIO, or
 * each one when COUNT is 0.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096

static void die(const char *what) {
    fprintf(stderr, "powercut: %s: %s\n", what, strerror(errno));
    abort();
}

/* An inode's number is given again after it is freed; with the time of birth it is one file's alone. */
static void key_of(int folder, const char *name, char *key, size_t size, unsigned *mode) {
    struct statx found;
    int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    if (statx(folder, name, flags, STATX_BASIC_STATS | STATX_BTIME, &found)) {
        *key = 0; /* gone meanwhile */
        return;
    }
    if (!(found.stx_mask & STATX_BTIME)) {
        errno = ENOTSUP;
        die("this file system keeps no time of birth; use ext4, xfs, btrfs or tmpfs for the temporary folder");
    }
    *mode = found.stx_mode;
    snprintf(key, size, "%llu-%lld.%u", (unsigned long long)found.stx_ino, (long long)found.stx_btime.tv_sec,
             found.stx_btime.tv_nsec);
}

static void put(FILE *out, const void *data, size_t size) {
    if (fwrite(data, 1, size, out) != size) die("journal");
}

/* "F KEY SIZE", then for each page that differs from what was durable "NUMBER" and its bytes; -1 ends. */
static void note_file(FILE *out, const char *state, const char *key, int handle) {
    char path[PATH_MAX], ours[PAGE], theirs[PAGE];
    struct stat found;
    /* The descriptor may be open for writing only, so it is read through another one. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", handle);
    int source = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "%s/files/%s", state, key);
    int known = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (source < 0 || known < 0 || fstat(source, &found)) die(path);
    fprintf(out, "F %s %lld\n", key, (long long)found.st_size);
    for (int64_t place = 0; place < found.st_size; place += PAGE) {
        size_t wanted = found.st_size - place < PAGE ? (size_t)(found.st_size - place) : PAGE;
        ssize_t count = pread(source, ours, wanted, place);
        if (count < 0) die("read");
        memset(ours + count, 0, PAGE - count);
        ssize_t before = pread(known, theirs, PAGE, place);
        if (before >= (ssize_t)wanted && !memcmp(ours, theirs, wanted)) continue;
        int64_t number = place / PAGE;
        put(out, &number, sizeof number);
        put(out, ours, PAGE);
        if (pwrite(known, ours, wanted, place) != (ssize_t)wanted) die("write");
    }
    if (ftruncate(known, found.st_size)) die("truncate");
    int64_t end = -1;
    put(out, &end, sizeof end);
    close(source);
    close(known);
}

/* "D KEY", then a line "d|f KEY NAME" for each name; an empty line ends. */
static void note_folder(FILE *out, const char *key, int handle) {
    int copy = openat(handle, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = copy < 0 ? NULL : fdopendir(copy);
    if (!folder) die("folder");
    fprintf(out, "D %s\n", key);
    for (struct dirent *entry; (entry = readdir(folder));) {
        char child[64];
        unsigned mode = 0;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        key_of(copy, entry->d_name, child, sizeof child, &mode);
        if (*child) fprintf(out, "%c %s %s\n", S_ISDIR(mode) ? 'd' : 'f', child, entry->d_name);
    }
    fprintf(out, "\n");
    closedir(folder);
}

static int must_fail(const char *state, const char *path) {
    char name[PATH_MAX], text[256] = "";
    int count;
    snprintf(name, sizeof name, "%s/fail", state);
    FILE *order = fopen(name, "re");
    if (!order) return 0;
    int found = fscanf(order, "%d %255s", &count, text);
    fclose(order);
    if (found != 2 || !strstr(path, text)) return 0;
    if (count == 0) return 1;
    if (--count == 0) {
        char done[PATH_MAX];
        snprintf(done, sizeof done, "%s/failed", state);
        if (rename(name, done)) die(name);
        return 1;
    }
    if (!(order = fopen(name, "we"))) die(name);
    fprintf(order, "%d %s", count, text);
    fclose(order);
    return 0;
}

static int note(int handle) {
    const char *root = getenv("POWERCUT_ROOT"), *state = getenv("POWERCUT_STATE");
    char link[64], path[PATH_MAX], name[PATH_MAX], key[64];
    unsigned mode = 0;
    struct stat found;
    if (fstat(handle, &found)) return -1;
    if (!root || !state || !(S_ISREG(found.st_mode) || S_ISDIR(found.st_mode))) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) die(link);
    path[length] = 0;
    if (strncmp(path, root, strlen(root))) return 0;
    snprintf(name, sizeof name, "%s/journal", state);
    /* One at a time: the journal has the order in which things became durable. */
    int lock = open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX)) die(name);
    int fails = must_fail(state, path);
    if (!fails) {
        char *record = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&record, &size);
        key_of(handle, "", key, sizeof key, &mode);
        if (S_ISDIR(mode))
            note_folder(out, key, handle);
        else
            note_file(out, state, key, handle);
        fclose(out);
        /* In one piece: a reader may come at any moment, and the process may be killed. */
        if (write(lock, record, size) != (ssize_t)size) die("journal");
        free(record);
    }
    close(lock);
    if (fails) errno = EIO;
    return fails ? -1 : 0;
}

int fsync(int handle) { return note(handle); }

int fdatasync(int handle) { return note(handle); }
