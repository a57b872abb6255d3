#!/bin/busybox sh
# The guest's first process: runs driver with the words after "driver" of the kernel's command
# line (the kernel puts parameters before it that it does not know). driver's JSON and its exit
# code go to the second serial port, everything else to the first.
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox stty -F /dev/ttyS1 raw
# What the kernel still does in the background after boot; idle time costs nothing.
/bin/busybox sleep 5
while [ $# -gt 0 ] && [ "$1" != driver ]; do shift; done
shift
/bin/driver "$@" --json /run.json
code=$?
[ -e /run.json ] && /bin/busybox cat /run.json >/dev/ttyS1
echo "exit $code" >/dev/ttyS1
/bin/busybox poweroff -f
