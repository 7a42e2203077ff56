import { accessSync, constants } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import test from 'ava';

import { chooseAccelerator } from '../../src/accelerators/choose.ts';
import { MicroVMError } from '../../src/errors.ts';
import { guestSpeed, runsKernelsNatively } from '../../src/host/guest-speed.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

test('tcg is taken when it is asked for, without a look at KVM', async (t) => {
  const { accelerator } = await chooseAccelerator({
    accelerator: 'tcg',
    kvmDevice: '/no/such/device',
    hugePages: false,
  });
  t.is(accelerator.name, 'tcg');
});

test('auto falls back to tcg without a KVM device and says why in one line', async (t) => {
  const { accelerator, reason } = await chooseAccelerator({
    accelerator: 'auto',
    kvmDevice: '/no/such/device',
    hugePages: false,
  });
  t.is(accelerator.name, 'tcg');
  t.is(reason, 'tcg (slow): /no/such/device does not exist');
});

for (const accelerator of ['tcg', 'auto'] as const) {
  test(`huge pages are refused where ${accelerator} means tcg, with the reason`, async (t) => {
    const choice = chooseAccelerator({ accelerator, kvmDevice: '/no/such/device', hugePages: true });
    await t.throwsAsync(choice, { code: 'ERR_NOT_SUPPORTED', message: /huge pages \(tcg / });
  });
}

test('kvm without a device is an error with something to do', async (t) => {
  const error = await t.throwsAsync(
    chooseAccelerator({ accelerator: 'kvm', kvmDevice: '/no/such/device', hugePages: false }),
    {
      instanceOf: MicroVMError,
      code: 'ERR_KVM_MISSING',
    },
  );
  t.regex(error.hint ?? '', /\. To mend it: \S/);
});

test('a regular file is no KVM device', async (t) => {
  const file = `${await temporaryFolder(t)}/kvm`;
  await writeFile(file, '');
  await t.throwsAsync(chooseAccelerator({ accelerator: 'kvm', kvmDevice: file, hugePages: false }), {
    code: 'ERR_KVM_NOT_A_DEVICE',
  });
});

test('another device is no KVM device', async (t) => {
  await t.throwsAsync(chooseAccelerator({ accelerator: 'kvm', kvmDevice: '/dev/null', hugePages: false }), {
    code: 'ERR_KVM_NOT_A_DEVICE',
  });
});

test('a kernel that runs at the speed of the host counts as native, one that is emulated does not', (t) => {
  t.true(runsKernelsNatively({ ring0Ratio: 1.1, ring3Ratio: 1 }));
  t.true(runsKernelsNatively({ ring0Ratio: 12, ring3Ratio: undefined }));
  t.false(runsKernelsNatively({ ring0Ratio: 500, ring3Ratio: 3 }));
});

const withKvm = canOpenKvm() ? test : test.skip;

withKvm('the measurement is made once per process', async (t) => {
  t.is(await guestSpeed('/dev/kvm'), await guestSpeed('/dev/kvm'));
});

withKvm('auto and kvm agree with the measurement', async (t) => {
  const native = runsKernelsNatively(await guestSpeed('/dev/kvm'));
  const { accelerator } = await chooseAccelerator({ accelerator: 'auto', kvmDevice: '/dev/kvm', hugePages: false });
  t.is(accelerator.name, native ? 'kvm' : 'tcg');
  const asked = chooseAccelerator({ accelerator: 'kvm', kvmDevice: '/dev/kvm', hugePages: false });
  if (native) t.is((await asked).accelerator.name, 'kvm');
  else await t.throwsAsync(asked, { code: 'ERR_KVM_EMULATED' });
});

function canOpenKvm(): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
