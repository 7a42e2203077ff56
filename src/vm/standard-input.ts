// Standard input for a command: today's channel carries a command line and nothing else, so it travels inside.

/** The line with `input` on its standard input. The guest needs `base64`. */
export function withInput(line: string, input: string | Uint8Array): string {
  const encoded = Buffer.from(input).toString('base64');
  // base64 has no character that ends a here-document early; the braces keep the line's own exit code.
  return `base64 -d <<'MICROVM_INPUT' | {\n${encoded.replaceAll(/.{76}(?=.)/g, '$&\n')}\nMICROVM_INPUT\n${line}\n}`;
}
