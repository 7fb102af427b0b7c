// Joins PNG images of one size and kind to an animated PNG, as in the third edition of the PNG specification.
import { crc32, deflateSync, inflateSync } from "node:zlib";

const SIGNATURE = Buffer.from("89504e470d0a1a0a", "hex");

/** `frames`: each with its `image`, a PNG, and how many `milliseconds` it is shown. It repeats for ever. */
export function animate(frames) {
  const [header] = chunks(frames[0].image).find(([type]) => type === "IHDR").slice(1);
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  let sequence = 0;
  const parts = [SIGNATURE, chunk("IHDR", header), chunk("acTL", numbers(frames.length, 0))];
  for (const [index, { image, milliseconds }] of frames.entries()) {
    const read = chunks(image);
    if (!read.find(([type]) => type === "IHDR")[1].equals(header)) throw new Error(`frame ${index} is of another kind`);
    const delay = Buffer.alloc(6);
    delay.writeUInt16BE(milliseconds, 0);
    delay.writeUInt16BE(1000, 2);
    parts.push(chunk("fcTL", Buffer.concat([numbers(sequence++, width, height, 0, 0), delay])));
    const packed = Buffer.concat(read.filter(([type]) => type === "IDAT").map(([, data]) => data));
    const data = deflateSync(inflateSync(packed), { level: 9 });
    parts.push(index === 0 ? chunk("IDAT", data) : chunk("fdAT", Buffer.concat([numbers(sequence++), data])));
  }
  return Buffer.concat([...parts, chunk("IEND", Buffer.alloc(0))]);
}

function chunks(image) {
  const found = [];
  for (let at = SIGNATURE.length; at < image.length; ) {
    const length = image.readUInt32BE(at);
    found.push([image.toString("latin1", at + 4, at + 8), image.subarray(at + 8, at + 8 + length)]);
    at += 12 + length;
  }
  return found;
}

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  return Buffer.concat([numbers(data.length), body, numbers(crc32(body))]);
}

function numbers(...values) {
  const buffer = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => buffer.writeUInt32BE(value >>> 0, 4 * index));
  return buffer;
}
