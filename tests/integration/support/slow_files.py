#!/usr/bin/python3
# A file system for slow_files.rs: `slow_files.py SOURCE MOUNT-POINT MILLISECONDS`. It shows the source, each operation takes
# that long, nothing is cached, and like NFS it renames what is removed while somebody has it open.
import errno
import os
import stat
import sys
import time

try:
    import fusepy as fuse
except ImportError:
    import fuse


class Slow(fuse.Operations):
    def __init__(self, source, delay):
        self.source, self.delay = source, delay

    def __call__(self, operation, path, *arguments):
        time.sleep(self.delay)
        try:
            return super().__call__(operation, self.source + path, *arguments)
        except OSError as error:
            raise fuse.FuseOSError(error.errno)

    def getattr(self, path, handle=None):
        found = os.lstat(path)
        return {name: getattr(found, name) for name in dir(found) if name.startswith("st_") and not name.endswith("_ns")}

    def readdir(self, path, handle):
        return [".", ".."] + os.listdir(path)

    def access(self, path, mode):
        if not os.access(path, mode, follow_symlinks=False):
            raise fuse.FuseOSError(errno.EACCES)

    def mknod(self, path, mode, device):
        if stat.S_ISREG(mode):
            return os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        return os.mknod(path, mode, device)

    def create(self, path, mode, info=None):
        return os.open(path, os.O_RDWR | os.O_CREAT, mode)

    def open(self, path, flags):
        return os.open(path, flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW))

    def read(self, path, size, offset, handle):
        return os.pread(handle, size, offset)

    def write(self, path, data, offset, handle):
        return os.pwrite(handle, data, offset)

    def truncate(self, path, length, handle=None):
        os.truncate(path, length)

    def release(self, path, handle):
        os.close(handle)

    def fsync(self, path, only_data, handle):
        os.fsync(handle)

    def flush(self, path, handle):
        pass

    def rename(self, old, new):
        os.rename(old, self.source + new)

    def link(self, target, source):
        os.link(self.source + source, target)

    def symlink(self, target, source):
        os.symlink(source[len(self.source) :] if source.startswith(self.source) else source, target)

    def readlink(self, path):
        return os.readlink(path)

    def statfs(self, path):
        found = os.statvfs(path)
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}

    def utimens(self, path, times=None):
        os.utime(path, times, follow_symlinks=False)

    def chmod(self, path, mode):
        os.chmod(path, mode)

    def chown(self, path, uid, gid):
        os.lchown(path, uid, gid)

    def mkdir(self, path, mode):
        os.mkdir(path, mode)

    def rmdir(self, path):
        os.rmdir(path)

    def unlink(self, path):
        os.unlink(path)


source, target, milliseconds = sys.argv[1:]
uncached = {"entry_timeout": 0, "attr_timeout": 0, "negative_timeout": 0, "direct_io": True}
fuse.FUSE(Slow(source, int(milliseconds) / 1000), target, foreground=True, **uncached)
