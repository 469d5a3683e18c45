/* Loaded before the C library into a process under test. For the files whose path contains
 * FAULTS_MATCH it does two things:
 *
 * - While the file FAULTS_ARM exists, calls fail: it holds "CALL ERRNO SKIP", where CALL is
 *   fsync or write; the first SKIP such calls after arming still succeed.
 * - With FAULTS_TRACE it appends every change in the order of the calls: 'W' offset length bytes,
 *   'T' length (ftruncate), 'S' (fsync), each with the file's path, so that a test can rebuild what
 *   a disk may hold after a power cut at any point.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static long calls = 0;

static int path_of(int fd, char *path, size_t size) {
    const char *match = getenv("FAULTS_MATCH");
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0 || match == NULL) return 0;
    path[length] = 0;
    return strstr(path, match) != NULL;
}

static int fails(const char *call) {
    const char *arm = getenv("FAULTS_ARM");
    FILE *file = arm ? fopen(arm, "re") : NULL;
    if (file == NULL) { calls = 0; return 0; }
    char which[16] = "";
    int number = 0, skip = 0;
    int read = fscanf(file, "%15s %d %d", which, &number, &skip);
    fclose(file);
    if (read < 2 || strcmp(which, call) != 0) return 0;
    return calls++ < skip ? 0 : number;
}

static void note(char kind, const char *path, int64_t offset, int64_t length, const void *data) {
    const char *name = getenv("FAULTS_TRACE");
    if (name == NULL) return;
    if (trace < 0) trace = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int32_t size = (int32_t)strlen(path);
    int64_t carried = data == NULL ? 0 : length;
    char head[1 + 4 + 8 + 8 + 8];
    head[0] = kind;
    memcpy(head + 1, &size, 4);
    memcpy(head + 5, &offset, 8);
    memcpy(head + 13, &length, 8);
    memcpy(head + 21, &carried, 8);
    struct iovec parts[3] = {  /* in one call: the process under test appends lines of its own */
        {head, sizeof head}, {(void *)path, (size_t)size}, {(void *)data, (size_t)carried}};
    if (writev(trace, parts, 3) < 0) abort();
}

static int synced(int fd, const char *name) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    char path[4096];
    if (!path_of(fd, path, sizeof path)) return real(fd);
    pthread_mutex_lock(&lock);
    int number = fails("fsync");
    int result = number ? -1 : real(fd);
    if (result == 0) note('S', path, 0, 0, NULL);
    pthread_mutex_unlock(&lock);
    if (number) errno = number;
    return result;
}

int fsync(int fd) { return synced(fd, "fsync"); }
int fdatasync(int fd) { return synced(fd, "fdatasync"); }

static ssize_t written(const char *name, int fd, const void *data, size_t size, off64_t offset) {
    ssize_t (*real)(int, const void *, size_t, off64_t) =
        (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, name);
    char path[4096];
    if (!path_of(fd, path, sizeof path)) return real(fd, data, size, offset);
    pthread_mutex_lock(&lock);
    int number = fails("write");
    ssize_t result = number ? -1 : real(fd, data, size, offset);
    if (result > 0) note('W', path, offset, result, data);
    pthread_mutex_unlock(&lock);
    if (number) errno = number;
    return result;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    return written("pwrite64", fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return written("pwrite64", fd, data, size, offset);
}

static int cut(const char *name, int fd, off64_t length) {
    int (*real)(int, off64_t) = (int (*)(int, off64_t))dlsym(RTLD_NEXT, name);
    char path[4096];
    int result = real(fd, length);
    if (result == 0 && path_of(fd, path, sizeof path)) {
        pthread_mutex_lock(&lock);
        note('T', path, 0, length, NULL);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int ftruncate64(int fd, off64_t length) { return cut("ftruncate64", fd, length); }
int ftruncate(int fd, off_t length) { return cut("ftruncate64", fd, length); }
