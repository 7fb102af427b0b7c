/** Prints figures as a table, whose first column names what they are of. */
export function print(title, columns, table) {
  const rows = [columns, ...table.map((figures) => columns.map((column) => String(figures[column] ?? "")))];
  const widths = columns.map((_, index) => Math.max(...rows.map((row) => row[index].length)));
  const line = (row) => row.map((cell, index) => (index ? cell.padStart(widths[index]) : cell.padEnd(widths[index]))).join("  ");
  console.log([title, ...rows.map(line)].join("\n"));
}
