import test from 'ava';

import { emulatedError, extensionsError } from '../../../src/doctor/kvm/errors.ts';

test('a KVM that emulates is told with how much slower it is, and what to use instead', (t) => {
  const { code, message, hint } = emulatedError('/dev/kvm', 2945.3);
  t.is(code, 'ERR_KVM_EMULATED');
  t.is(message, '/dev/kvm emulates guest kernel code, 2,945 times slower than native');
  t.regex(hint ?? '', /use accelerator: 'tcg'/);
});

test('extensions that KVM lacks are named, with the kernel that has them', (t) => {
  const { code, message, hint } = extensionsError('/dev/kvm', ['KVM_CAP_IRQFD', 'KVM_CAP_IOEVENTFD']);
  t.is(code, 'ERR_KVM_EXTENSION');
  t.is(message, '/dev/kvm lacks KVM_CAP_IRQFD, KVM_CAP_IOEVENTFD');
  t.regex(hint ?? '', /Linux 4\.11/);
});
