// The installed package: nothing runs without its addon.

import type { Context } from '../context.ts';
import { type Finding, fix, found, type Problem, together } from '../model.ts';

export function checkPackage({ host }: Context): Finding {
  const { version, platform, addon, agent } = host.packageFacts();
  const own = found('package', 'Package', 'info', `@hybrid/microvm ${version} for ${platform}`);
  if (!addon.loaded) {
    const problem: Problem = {
      id: 'addon-missing',
      check: 'addon',
      title: 'the native addon cannot be used',
      causes: [addon.message],
      fixes: addon.hint === undefined ? [] : [fix(addon.hint)],
    };
    return together(own, { ...found('addon', 'Addon', 'fail', 'not loaded'), problems: [problem] });
  }
  if (addon.version !== version) {
    const problem: Problem = {
      id: 'addon-version',
      check: 'addon',
      title: 'the native addon has another version than the package',
      causes: [
        `${addon.file} was built as ${addon.version ?? 'a version that does not tell'}, the package is ${version}`,
      ],
      fixes: [
        fix(
          `install both in the same version: npm install @hybrid/microvm@${version} (in a checkout: npm run build:native)`,
        ),
      ],
    };
    return together(own, { ...found('addon', 'Addon', 'fail', addon.version ?? 'too old'), problems: [problem] });
  }
  return together(own, found('addon', 'Addon', 'pass', addon.file), checkAgent(agent));
}

function checkAgent(agent: string | undefined): Finding {
  if (agent !== undefined) return found('agent', 'Guest agent', 'pass', agent);
  const problem: Problem = {
    id: 'agent-missing',
    check: 'agent',
    title: 'the guest agent is missing',
    causes: ['it lies beside the addon, and was not installed with it'],
    fixes: [fix('install the package again; in a checkout: npm run build:native')],
  };
  return { ...found('agent', 'Guest agent', 'fail', 'missing'), problems: [problem] };
}
