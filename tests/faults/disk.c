/* Makes the calls that write to a folder fail, as told by the first letter of a file; see disk.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char mode(void) {
    const char *path = getenv("FAULTY_DISK");
    char letter = '0';
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        if (read(fd, &letter, 1) != 1) letter = '0';
        close(fd);
    }
    return letter;
}

/* Whether a descriptor is of a file in the folder; of its head file alone when `head` is set. */
static int is_ours(int fd, int head) {
    char link[64], path[4096];
    const char *folder = getenv("FAULTY_FOLDER");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || !folder) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    return !head || (length > 5 && !strcmp(path + length - 5, "/head"));
}

static int fails(int fd, int syncs) {
    switch (mode()) {
        case 'E': if (is_ours(fd, 0)) { errno = EIO; return 1; } break;
        case 'N': if (!syncs && is_ours(fd, 0)) { errno = ENOSPC; return 1; } break;
        case 'F': if (syncs && is_ours(fd, 0)) { errno = EIO; return 1; } break;
        case 'H': if (is_ours(fd, 1)) { errno = EIO; return 1; } break;
        case 'S': if (syncs && is_ours(fd, 0)) usleep(700000); break;
    }
    return 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return fails(fd, 0) ? -1 : NEXT(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return fails(fd, 0) ? -1 : NEXT(pwrite64)(fd, data, size, at);
}
ssize_t write(int fd, const void *data, size_t size) { return fails(fd, 0) ? -1 : NEXT(write)(fd, data, size); }
int fsync(int fd) { return fails(fd, 1) ? -1 : NEXT(fsync)(fd); }
int fdatasync(int fd) { return fails(fd, 1) ? -1 : NEXT(fdatasync)(fd); }
