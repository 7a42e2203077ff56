#!/bin/busybox sh
# First program of the emulated machine: mounts the outer machine's files under a layer in memory and moves there.

b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev

for module in /modules/*.ko; do
  $b insmod "$module" || echo "lab: cannot load $module"
done

give_up() {
  echo "lab: $1"
  $b poweroff -f
}

$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose lab-root /lower || give_up "the 9p share cannot be mounted"
$b mount -t tmpfs -o size=80% layer /upper
$b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /newroot || give_up "the overlay cannot be mounted"

for folder in proc sys dev; do
  $b mount --move "/$folder" "/newroot/$folder"
done

session=$($b sed -n 's/.*lab\.session=\([^ ]*\).*/\1/p' /newroot/proc/cmdline)
exec $b switch_root /newroot /bin/bash "$session"
