#!/bin/busybox sh
# The first process in the initramfs: puts the guest's root together and hands over.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
modprobe -a virtio_pci virtio_blk 9pnet_virtio 9p crc32c_generic ext4 overlay || exec poweroff -f
options=trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro
mount -t 9p -o $options host /host
mount -t 9p -o $options extra /extra
mount -t ext4 /dev/vda /disk
mount -t overlay -o lowerdir=/extra:/host,upperdir=/disk/upper,workdir=/disk/work root /root
# Containers' own overlays need a real file system below them.
mount --bind /disk/tmp /root/tmp
chmod 1777 /root/tmp
mkdir -p /root/run /root/mnt/disk
mount -t tmpfs -o mode=755 tmpfs /root/run
mount --move /disk /root/mnt/disk
for place in proc sys dev; do mount --move /$place /root/$place; done
if [ "$(cat /root/mnt/disk/placement)" = systemd ]; then
    # Nothing of this machine's own services: one that runs the tests, and what systemd itself needs.
    units=/root/run/systemd/system
    mkdir -p $units
    cat > $units/minke-vm.service <<END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
ExecStart=/bin/sh /mnt/disk/guest.sh
END
    exec switch_root /root /lib/systemd/systemd --system --unit=minke-vm.service systemd.unified_cgroup_hierarchy=1
fi
exec switch_root /root /bin/sh /mnt/disk/guest.sh
