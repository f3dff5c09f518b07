// Browsers refuse workers to a page that was opened from the disk. The search of such a page runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.scope = frame.contentWindow;
      this.loaded = new Promise((done) => frame.addEventListener("load", done));
      this.scope.document.open();
      // What the script posts goes to this object, and not to the frame's own window.
      this.scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.scope.document.write(`<script src="${url}"><\/script>`);
      this.scope.document.close();
    }

    postMessage(data) {
      this.loaded.then(() => this.scope.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
