# What runs in the guest: mounts what a plain host has, then the tests of the script, then tells the verdict.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TMPDIR=/tmp
placement=$(cat /mnt/disk/placement)
code=0

verdict() {
    echo "minke-vm: exit $code"
    sync
    exec busybox poweroff -f
}

# run DIRECTORY PROGRAM [FILTER]...
run='run() {
    echo "-- $*"
    cd "$1" || exit 1
    program=$2
    shift 2
    "$program" --test-threads=2 "$@" || code=1
}'
eval "$run"

if [ "$placement" != systemd ]; then
    mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
    mkdir -p /dev/pts /dev/shm /dev/mqueue
    mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mount -t mqueue mqueue /dev/mqueue
    ip link set lo up
    hostname minke-vm
fi
[ "$placement" = probe ] && verdict
mount --make-rshared /
uname -a
grep cgroup /proc/self/mountinfo
if [ "$placement" = container ]; then
    # As in a privileged container: a cgroup namespace whose root holds our own processes, a root that is not shared.
    echo "+cpu +cpuset +io +memory +pids" > /sys/fs/cgroup/cgroup.subtree_control
    mkdir /sys/fs/cgroup/outer
    echo $$ > /sys/fs/cgroup/outer/cgroup.procs
    unshare --cgroup --mount --propagation private sh -c '
        umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
        code=0; '"$run"'; . /mnt/disk/script.sh; exit $code' || code=1
else
    . /mnt/disk/script.sh
fi
verdict
