// The shared document: two people, each with the built module of ../web, which brings its own connection.

import { Device } from "./device.js";
import { Letter } from "./letter.js";

export function sharedDocument(part) {
  const letters = [["Ada", "ada"], ["Bob", "bob"]].map(([name, user]) => {
    const letter = new Letter(user);
    const device = new Device(part, { name, socket: letter.connection, isJoining: () => letter.isJoining });
    letter.onrefused = (reason) => device.note(`Not saved: ${reason}`);
    letter.show(device.body, name);
    return letter;
  });
  return () => letters.forEach((letter) => letter.close());
}
