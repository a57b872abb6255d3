#!/busybox sh
# The guest's first process, in the initramfs: makes the root file system and goes there. Where there is /sealed, the
# initramfs is all there is; else the host's files are the lower layer of an overlay, and what is written stays in memory.
/busybox mkdir -p /bin.busybox /dev /proc /sys /run
/busybox --install -s /bin.busybox
PATH=/bin.busybox
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys

fail() {
    echo "vm: $*" >/dev/console
    echo "broken $*" >/dev/ttyS3
    poweroff -f
}

for module in /modules/*.ko; do
    [ -e "$module" ] || continue
    insmod "$module" || fail "cannot load $module"
done

new=
if [ ! -e /sealed ]; then
    new=/new
    mkdir /lower /upper /new
    mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /lower || fail "no 9p root"
    mount -t tmpfs -o mode=755,size=80% upper /upper || fail "no tmpfs"
    mkdir /upper/data /upper/work
    mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /new || fail "no overlay"
    for folder in dev proc sys; do
        mkdir -p /new/$folder
        mount -o move /$folder /new/$folder
    done
    mkdir -p /new/run
fi
mount -t tmpfs -o mode=755 run $new/run
mkdir -p $new/run/vm $new/run/lock $new/dev/pts $new/dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts $new/dev/pts
mount -t tmpfs -o mode=1777 shm $new/dev/shm
# What the kernel may lack.
for it in cgroup2:fs/cgroup tracefs:kernel/tracing debugfs:kernel/debug; do
    mount -t ${it%%:*} none $new/sys/${it#*:} 2>/dev/null
done
ln -s /proc/self/fd $new/dev/fd
ln -s fd/0 $new/dev/stdin
ln -s fd/1 $new/dev/stdout
ln -s fd/2 $new/dev/stderr
cp /busybox /run.sh /job $new/run/vm/
mkdir $new/run/vm/bin
$new/run/vm/busybox --install -s $new/run/vm/bin 2>/dev/null
if [ -n "$new" ]; then
    # Links are to where busybox will be.
    for link in /new/run/vm/bin/*; do ln -sf /run/vm/busybox "$link"; done
    exec switch_root /new /run/vm/busybox sh /run/vm/run.sh
fi
exec /run/vm/busybox sh /run/vm/run.sh
