// The schema that programs read the report by: whole hosts and broken ones keep to it, and it names every field.

import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import test from 'ava';

import { diagnose, doctor, type DoctorReport, REPORT_VERSION } from '../../src/doctor/doctor.ts';
import { ANN, type FakeHost, fakeHost, refused } from '../helpers/fake-host.ts';

const file = new URL(`../../schemas/doctor-report-${REPORT_VERSION}.json`, import.meta.url);
const schema = JSON.parse(readFileSync(file, 'utf8'), closed) as object;
const keeps = new Ajv2020({ allErrors: true }).compile(schema);

/** Readers take fields that they do not know; here one that is not written down is a mistake. */
function closed(_: string, value: unknown): unknown {
  const isObject = typeof value === 'object' && value !== null && 'properties' in value;
  return isObject ? { ...value, additionalProperties: false } : value;
}

function problemsOf(report: DoctorReport): unknown {
  return keeps(JSON.parse(JSON.stringify(report))) ? [] : keeps.errors;
}

const HOSTS: Readonly<Record<string, FakeHost>> = {
  'a healthy host': {},
  'a user who may not open KVM': { identity: ANN, openErrors: { '/dev/kvm': 'EACCES' }, group: 'kvm:x:104:\n' },
  'a host without KVM and QEMU': { nodes: { '/dev/kvm': 'ENOENT' }, programs: { 'qemu-system-x86_64': '' } },
  'a host whose KVM cannot be asked': { kvm: () => refused('EIO') },
  'a slow host': { guestSpeed: async () => ({ ok: true, value: { ring0Ratio: 3000, ring3Ratio: 1 } }) },
};

for (const [what, host] of Object.entries(HOSTS)) {
  test(`the report of ${what} keeps to the schema`, async (t) => {
    t.deepEqual(problemsOf(await diagnose(fakeHost(host))), []);
  });
}

test('the report of this host keeps to the schema', async (t) => {
  t.deepEqual(problemsOf(await doctor()), []);
});

test('a report with a field that is not written down does not', async (t) => {
  const report = await diagnose(fakeHost());
  t.notDeepEqual(problemsOf({ ...report, more: 1 } as DoctorReport), []);
  t.notDeepEqual(problemsOf({ ...report, ok: 'yes' } as unknown as DoctorReport), []);
});
