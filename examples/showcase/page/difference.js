// Differences of texts: {at, delete, insert}, in UTF-16 code units. None begins or ends within a character.

const isWithinCharacter = (text, at) => /^[\ud800-\udbff][\udc00-\udfff]$/.test(text.slice(at - 1, at + 1));

export function difference(before, after) {
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before[start] === after[start]) start += 1;
  if (isWithinCharacter(before, start) || isWithinCharacter(after, start)) start -= 1;
  let end = 0;
  while (end < most - start && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  if (isWithinCharacter(before, before.length - end) || isWithinCharacter(after, after.length - end)) end -= 1;
  return { at: start, delete: before.length - start - end, insert: after.slice(start, after.length - end) };
}

export function applied(text, { at, delete: deleted, insert }) {
  return text.slice(0, at) + insert + text.slice(at + deleted);
}

// Where a position is behind a difference.
export function moved(position, { at, delete: deleted, insert }) {
  if (position <= at) return position;
  return Math.max(position - deleted, at) + insert.length;
}

// An own difference of a text, as one of what others have made of that text. Where both meet, it deletes nothing: what it
// would delete may be theirs.
export function rebased(own, others) {
  const meet = own.at < others.at + Math.max(others.delete, 1) && others.at < own.at + own.delete;
  return { ...own, at: moved(own.at, others), delete: meet ? 0 : own.delete };
}
