//! Safe handles for /dev/kvm
