// What runs in the emulated machine once it has its root: a script that makes it a host for virtual machines,
// runs the command, and reports its status.

/** @param {string} text */
function quote(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Variables that would lead back to the outer machine. */
const WITHHELD =
  /^(?:LAB|LAB_.*|SHLVL|_|PWD|OLDPWD|TMPDIR|XDG_RUNTIME_DIR|SSH_.*|DISPLAY|DBUS_.*|npm_.*|INIT_CWD|TERM)$/;

/**
 * @param {object} session
 * @param {string[]} session.command
 * @param {string} session.modules the folder of the kernel's modules
 * @param {string} session.cache the cache folder, named explicitly as the user may differ
 * @param {string} session.kvmAmd parameters for kvm_amd
 */
export function sessionScript({ command, modules, cache, kvmAmd }) {
  const environment = Object.entries({ ...process.env, MICROVM_CACHE: cache, MICROVM_LAB: '1' })
    .filter(([name]) => /^[A-Za-z_]\w*$/.test(name) && !WITHHELD.test(name))
    .map(([name, value]) => `export ${name}=${quote(value ?? '')}`);
  return `#!/bin/bash
exec </dev/null
hostname microvm-lab
for folder in /run /dev/shm /dev/pts; do mkdir -p "$folder"; done
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs shm /dev/shm
mount -t devpts -o gid=5,mode=620 pts /dev/pts
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /run/user/0 /lib/modules && chmod 700 /run/user/0
ln -sfn ${quote(modules)} "/lib/modules/$(uname -r)"
ip link set lo up 2>/dev/null || busybox ip link set lo up 2>/dev/null || ${quote(`${cache}/tools/busybox-static/busybox`)} ip link set lo up

busybox=${quote(`${cache}/tools/busybox-static/busybox`)}
# Programs may ask for it by name.
command -v modprobe >/dev/null || ln -s "$busybox" /usr/local/sbin/modprobe
"$busybox" modprobe kvm-amd ${kvmAmd} || echo 'lab: kvm-amd cannot be loaded'
for module in vhost_vsock vsock_loopback tun fuse; do "$busybox" modprobe "$module" || echo "lab: $module cannot be loaded"; done
chmod 666 /dev/vhost-vsock 2>/dev/null
chgrp ${quote(KVM_GROUP)} /dev/kvm && chmod 660 /dev/kvm
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd

port() {
  local name
  for name in /sys/class/virtio-ports/*/name; do
    if [ "$(cat "$name")" = "lab.$1" ]; then echo "/dev/$(basename "$(dirname "$name")")"; fi
  done
}

${environment.join('\n')}
export XDG_RUNTIME_DIR=/run/user/0 TERM=dumb
cd ${quote(process.cwd())} || exit

# A port takes one opener; programs expect pipes.
mkfifo /run/lab.stdout /run/lab.stderr
cat /run/lab.stdout >"$(port stdout)" & copies=$!
cat /run/lab.stderr >"$(port stderr)" & copies="$copies $!"
${command.map(quote).join(' ')} >/run/lab.stdout 2>/run/lab.stderr
status=$?

# What the command left running may hold its outputs open: it gets two seconds, as the machine ends anyway.
(sleep 2; kill $copies) 2>/dev/null & 
wait $copies 2>/dev/null
echo "$status" >"$(port status)"
sync
"$busybox" poweroff -f
`;
}

/** The group that owns /dev/kvm there; lab/as-user joins it. */
export const KVM_GROUP = '78';
