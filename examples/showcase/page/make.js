// Creates an element. What users have written is only ever set as text.
export function make(tag, properties = {}, ...children) {
  const { testid, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  if (testid) element.dataset.testid = testid;
  element.append(...children);
  return element;
}
