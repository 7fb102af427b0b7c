// The shared document: two people, each with the built module of ../web, which brings its own connection, or with a
// textarea if it is not built.

import { Device } from "./device.js";
import { PlainLetter } from "./plain.js";

const PEOPLE = [["Ada", "ada"], ["Bob", "bob"]];

export function sharedDocument(part) {
  let letters = [];
  let isOver = false;
  editor().then((Letter) => {
    if (isOver) return;
    part.querySelector(".without-editor").hidden = Letter !== null;
    letters = PEOPLE.map(([name, user]) => (Letter ? edited(part, name, new Letter(user)) : new PlainLetter(part, name, user)));
  });
  return () => {
    isOver = true;
    letters.forEach((letter) => letter.close());
  };
}

async function editor() {
  try {
    return (await import("./letter.js")).Letter;
  } catch {
    return null;
  }
}

function edited(part, name, letter) {
  const device = new Device(part, { name, socket: letter.connection, isJoining: () => letter.isJoining });
  letter.onrefused = (reason) => device.note(`Not saved: ${reason}`);
  letter.show(device.body, name);
  return {
    close() {
      device.close();
      letter.close();
    },
  };
}
