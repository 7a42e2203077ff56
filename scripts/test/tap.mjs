// Reads TAP as it comes: shows it as short lines, and counts.

const RESULT = /^(ok|not ok) \d+ - (.*?)(?: # (SKIP|TODO).*)?$/;
const PLAN = /^1\.\.\d+$/;

/**
 * @param {(line: string) => void} show
 */
export function tapReader(show) {
  const counts = { passed: 0, failed: 0, skipped: 0, complete: false };
  let rest = '';

  /** @param {string} line */
  const read = (line) => {
    const result = RESULT.exec(line);
    if (result === null) {
      if (PLAN.test(line)) counts.complete = true;
      if (line.startsWith('    ') || line.startsWith('  ---') || /^(?:TAP version|1\.\.|# |\s*$)/.test(line) === false)
        show(line);
      return;
    }
    const [, outcome, title, directive] = result;
    if (directive) counts.skipped += 1;
    else if (outcome === 'ok') counts.passed += 1;
    else counts.failed += 1;
    show(`  ${directive ? '·' : outcome === 'ok' ? '✓' : '✗'} ${title}`);
  };

  return {
    counts,
    /** @param {string} text */
    write(text) {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) read(line);
    },
    end() {
      if (rest !== '') read(rest);
    },
  };
}
