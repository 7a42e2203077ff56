import { type DebugRegs, Kvm, MicroVMError, type MpState, type Regs } from '../../src/kvm/index.ts';
import { guest, testWithKvm } from '../helpers/real-mode-guest.ts';

const STAR = 0xc000_0081;
const code = (code: string) => ({ instanceOf: MicroVMError, code });

testWithKvm('registers are bigints, and what modifyRegs’ function returns is handed back', (t) => {
  const { vcpu } = guest(t, 0xf4);
  const before = vcpu.modifyRegs((regs) => {
    const { rbx } = regs;
    regs.rbx = 2n ** 64n - 1n;
    regs.r15 = 0x1122_3344_5566_7788n;
    return rbx;
  });
  t.is(before, 0n);
  t.like(vcpu.getRegs(), { rbx: 2n ** 64n - 1n, r15: 0x1122_3344_5566_7788n, rip: 0x1000n });
  t.is(vcpu.id, 0);
});

testWithKvm('a value that does not fit its field is refused by name, and nothing is set', (t) => {
  const { vcpu } = guest(t, 0xf4);
  const regs = vcpu.getRegs();
  for (const wrong of [-1n, 2n ** 64n]) {
    t.throws(() => vcpu.setRegs({ ...regs, rcx: wrong }), { ...code('ERR_INVALID_OPTIONS'), message: /regs\.rcx/ });
  }
  t.throws(() => vcpu.setRegs({ ...regs, rcx: 1 as unknown as bigint }), code('ERR_INVALID_OPTIONS'));
  t.throws(() => vcpu.setRegs({} as Regs), code('ERR_INVALID_OPTIONS'));
  t.deepEqual(vcpu.getRegs(), regs);

  const sregs = vcpu.getSregs();
  for (const type of [256, -1, 0.5, Number.NaN]) {
    const changed = { ...sregs, cs: { ...sregs.cs, type } };
    t.throws(() => vcpu.setSregs(changed), { ...code('ERR_INVALID_OPTIONS'), message: /sregs\.cs\.type/ });
  }
  t.throws(() => vcpu.setSregs({ ...sregs, interruptBitmap: [0n] }), code('ERR_INVALID_OPTIONS'));
  t.throws(() => vcpu.setFpu({ ...vcpu.getFpu(), xmm: new Uint8Array(255) }), code('ERR_INVALID_OPTIONS'));
});

testWithKvm('every state that is read can be set again', (t) => {
  const { kvm, vcpu } = guest(t, 0xf4);
  vcpu.setCpuid(kvm.supportedCpuid());
  t.is(vcpu.getCpuid().length, kvm.supportedCpuid().length);

  const sregs = vcpu.getSregs();
  t.is(
    vcpu.modifySregs((regs) => (regs.gdt.limit = 0x27)),
    0x27,
  );
  t.deepEqual(vcpu.getSregs(), { ...sregs, gdt: { ...sregs.gdt, limit: 0x27 } });

  const fpu = vcpu.getFpu();
  fpu.xmm.fill(5, 48, 64);
  vcpu.setFpu(fpu);
  t.deepEqual(vcpu.getFpu(), fpu);

  const xsave = vcpu.getXsave();
  t.true(xsave.length >= 4096);
  // XMM0, and the header's bit that says that SSE's part is in use.
  xsave.fill(6, 160, 176);
  xsave[512] = 3;
  vcpu.setXsave(xsave);
  t.deepEqual(vcpu.getFpu().xmm.slice(0, 16), new Uint8Array(16).fill(6));

  const debugRegs: DebugRegs = { ...vcpu.getDebugRegs(), db: [1n, 2n, 3n, 4n] };
  vcpu.setDebugRegs(debugRegs);
  t.deepEqual(vcpu.getDebugRegs(), debugRegs);

  vcpu.setXcrs(vcpu.getXcrs());
  vcpu.setEvents(vcpu.getEvents());
  t.is(vcpu.getMpState(), 'runnable');
  vcpu.setMpState('runnable');
  vcpu.setGuestDebug({ singleStep: true });
  vcpu.setGuestDebug(undefined);
});

testWithKvm('wrong states are refused', (t) => {
  const { vcpu } = guest(t, 0xf4);
  for (const state of ['asleep', 'toString']) {
    t.throws(() => vcpu.setMpState(state as MpState), code('ERR_INVALID_OPTIONS'));
  }
  t.throws(() => vcpu.setXsave(new Uint8Array(100)), { ...code('ERR_KVM_FAILED'), message: /KVM_SET_XSAVE/ });
  t.throws(() => vcpu.setXcrs(Array.from({ length: 17 }, () => ({ xcr: 0, value: 1n }))), code('ERR_INVALID_OPTIONS'));
  t.throws(() => vcpu.setCpuid(Array.from({ length: 300 }, () => emptyCpuid)), code('ERR_INVALID_OPTIONS'));
  t.throws(() => vcpu.setGuestDebug({ hardwareBreakpoints: [1n] }), code('ERR_INVALID_OPTIONS'));
});

const emptyCpuid = { function: 0, index: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 };

testWithKvm('model-specific registers keep their values, and one that KVM refuses is named', (t) => {
  const { vcpu } = guest(t, 0xf4);
  const msr = { index: STAR, data: 0x0023_0010_0000_0000n };
  vcpu.setMsrs([msr]);
  t.deepEqual(vcpu.getMsrs([STAR, STAR]), [msr, msr]);
  t.deepEqual(vcpu.getMsrs([]), []);
  t.throws(() => vcpu.getMsrs([STAR, 0x1234_5678]), { ...code('ERR_KVM_FAILED'), message: /0x12345678.*KVM_GET_MSRS/ });
  t.throws(() => vcpu.setMsrs([{ ...msr, index: -1 }]), {
    ...code('ERR_INVALID_OPTIONS'),
    message: /msrs\[0\]\.index/,
  });
});

testWithKvm('vCPU numbers in use, too high or no integers are refused', async (t) => {
  const vm = Kvm.open().createVm();
  const vcpu = vm.createVcpu(0);
  t.throws(() => vm.createVcpu(0), { ...code('ERR_KVM_FAILED'), message: /KVM_CREATE_VCPU.*File exists/ });
  t.throws(() => vm.createVcpu(2 ** 30), { ...code('ERR_KVM_FAILED'), message: /Invalid argument/ });
  for (const id of [-1, 0.5, 2 ** 32]) t.throws(() => vm.createVcpu(id), code('ERR_INVALID_OPTIONS'));
  await vm.close();
  await vcpu.close();
  await vcpu.close();
  t.throws(() => vcpu.getRegs(), code('ERR_KVM_CLOSED'));
});
