// Two models side by side: the same message to both, answers as they come.

import { streamed } from "./api.js";
import { el, fill, find, options, say } from "./dom.js";
import { allModels } from "./models.js";

const form = find("chat-form");
let stopping = null;
let wanted = null;

function makeChat(letter) {
  const select = el("select", { id: `chat-model-${letter}` });
  const log = el("div", { class: "messages", role: "log", tabindex: "0", "aria-label": `Conversation with model ${letter.toUpperCase()}` });
  const panel = el("article", { class: "card chat" },
    el("label", { for: select.id }, `Model ${letter.toUpperCase()}`), select, log);
  find("chats").append(panel);
  return { select, log, messages: [] };
}

const chats = ["a", "b"].map(makeChat);

function bubble(chat, role, text) {
  const shown = el("p", { class: `bubble ${role}` }, el("span", { class: "sr-only" }, role === "user" ? "You: " : "Model: "), el("span", {}, text));
  chat.log.append(shown);
  chat.log.scrollTop = chat.log.scrollHeight;
  return shown;
}

function clear() {
  for (const chat of chats) {
    chat.messages = [];
    fill(chat.log);
  }
}

function settings() {
  const seed = find("chat-seed").value;
  return {
    temperature: Number(find("chat-temperature").value),
    max_completion_tokens: Number(find("chat-most").value) || 256,
    seed: seed === "" ? undefined : Number(seed),
    stream_options: { include_usage: true },
  };
}

// Asks one model; what has come stays when the answer is stopped.
async function answer(chat, text, signal) {
  const system = find("chat-system").value.trim();
  chat.messages.push({ role: "user", content: text });
  bubble(chat, "user", text);
  const shown = bubble(chat, "assistant", "");
  const place = shown.lastElementChild;
  shown.classList.add("waiting");
  chat.log.setAttribute("aria-busy", "true");
  const began = performance.now();
  let note = "";
  let content = "";
  try {
    const messages = [...(system ? [{ role: "system", content: system }] : []), ...chat.messages];
    const body = { model: chat.select.value, messages, ...settings() };
    for await (const chunk of streamed("/chat/completions", body, signal)) {
      const [choice] = chunk.choices;
      if (choice?.delta.content) {
        content += choice.delta.content;
        place.append(choice.delta.content);
        chat.log.scrollTop = chat.log.scrollHeight;
      }
      if (choice?.finish_reason === "length") note = "cut at the most tokens · ";
      if (chunk.usage) {
        const seconds = (performance.now() - began) / 1000;
        note += `${chunk.usage.completion_tokens} tokens · ${seconds.toFixed(1)} s`;
      }
    }
  } catch (error) {
    note = error.name === "AbortError" ? "stopped" : error.message;
    if (error.name !== "AbortError") shown.classList.add("bad");
  }
  if (content) chat.messages.push({ role: "assistant", content });
  else chat.messages.pop(); // Nothing was said: the next message stands in its place.
  shown.classList.remove("waiting");
  shown.append(el("small", {}, note));
  chat.log.setAttribute("aria-busy", "false");
  chat.log.scrollTop = chat.log.scrollHeight;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (stopping) return;
  const text = find("chat-text").value;
  if (!text.trim()) return;
  stopping = new AbortController();
  find("chat-text").value = "";
  find("chat-send").disabled = true;
  find("chat-stop").disabled = false;
  await Promise.all(chats.filter((chat) => chat.select.value).map((chat) => answer(chat, text, stopping.signal)));
  stopping = null;
  find("chat-send").disabled = false;
  find("chat-stop").disabled = true;
  find("chat-text").focus();
});
find("chat-text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
find("chat-stop").addEventListener("click", () => stopping?.abort());
find("chat-clear").addEventListener("click", () => {
  stopping?.abort();
  clear();
});
for (const chat of chats) chat.select.addEventListener("change", clear);

export const playground = {
  open(_, query) {
    wanted = query.get("model");
  },
  async refresh() {
    const { base, tuned, all } = await allModels();
    const names = all.map((model) => model.id);
    // A checkpoint is a model that no list names.
    const checkpoints = [wanted, ...chats.map((chat) => chat.select.value)].filter((name) => name?.includes(":ckpt-step-"));
    const known = [...new Set([...checkpoints, ...names])];
    const [one, other] = chats;
    options(one.select, known, one.select.value || base[0]?.id);
    options(other.select, known, wanted ?? (other.select.value || tuned[0]?.id || base[0]?.id));
    wanted = null;
  },
};
