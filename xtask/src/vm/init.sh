#!/bin/busybox sh
# First process of the emulated machine: runs the lines of /tests/plan, then tells QEMU how it went.
/bin/busybox mount -t devtmpfs dev /dev
# Programs that are there already are not replaced; busybox complains of each.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
# Emulation is slower than the real thing by about this factor.
export LAB_SLOWDOWN=1
export REDKEEPD=/tests/redkeepd REDKEEPCTL=/tests/redkeepctl
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
ip link set lo up
uname -srv
cd /tests
failed=0
total=0
while read -r program filters; do
    total=$((total + 1))
    echo "== $program $filters"
    # The words of a line are separate filters.
    # shellcheck disable=SC2086
    "./$program" $filters --test-threads=1 --nocapture </dev/null 2>&1 || failed=$((failed + 1))
done </tests/plan
echo "vm: $((total - failed)) of $total test programs passed"
# The second serial line is a file of the caller's; nothing is in it after a panic.
[ $failed = 0 ] && echo passed >/dev/ttyS1
poweroff -f
