// The API key, where the server asks for one: it stays in this tab.

import { find } from "./dom.js";

const NAME = "api_key";
let asking = null;

export const header = () => {
  const key = sessionStorage.getItem(NAME);
  return key ? { Authorization: `Bearer ${key}` } : {};
};

// Asks for a key; resolves to whether one was given. All who ask meanwhile wait for the same.
export function askKey(message = "") {
  find("change-key").hidden = false;
  asking ??= new Promise((resolve) => {
    const dialog = find("key-dialog");
    let given = false;
    find("key-said").textContent = message;
    find("key").value = "";
    find("key-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(NAME, find("key").value.trim());
      given = true;
      dialog.close();
    };
    find("key-cancel").onclick = () => dialog.close();
    dialog.onclose = () => {
      asking = null;
      resolve(given);
    };
    dialog.showModal();
  });
  return asking;
}

export const hasKey = () => sessionStorage.getItem(NAME) !== null;
