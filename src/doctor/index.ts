// The public API of `@hybrid/microvm/doctor`: re-exports only.

export { doctor } from './doctor.ts';
export type { DoctorOptions, DoctorReport } from './doctor.ts';
export type { Usability, Verdict } from './checks/accelerator.ts';
export type { Check, CheckStatus, Fix, FixCommand, Problem, Section } from './model.ts';
export { MicroVMError } from '../errors.ts';
export type { MicroVMErrorCode } from '../errors.ts';
