const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** Milliseconds, or a number with its unit: `'5m'`, `'1.5h'`. */
export type Span = number | `${number}${keyof typeof UNITS}`;

/** Whole milliseconds. Throws a TypeError for what is no span. */
export function millis(span: Span): number {
  const [, number, unit] = /^([\d.]+)(ms|s|m|h|d)$/.exec(String(span)) ?? [];
  const ms = typeof span === 'number' ? span : Number(number) * UNITS[unit as keyof typeof UNITS];
  return whole('a span', Math.ceil(ms));
}

/** A number that the wire can carry. */
export function whole(what: string, value: number): number {
  if (!Number.isSafeInteger(value) || value < 0) throw new TypeError(`${what} must be a whole number from 0 on`);
  return value;
}

/** An instant in Unix milliseconds. */
export const instant = (at: Date | number): number => whole('a time', Number(at));
