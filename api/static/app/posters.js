// Plays a poster's video, muted, while somebody points at it or it has the focus.

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export function startPosters() {
  for (const [come, go] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
    document.addEventListener(come, (event) => play(posterAt(event.target)));
    document.addEventListener(go, (event) => {
      const poster = posterAt(event.target);
      if (poster && !poster.contains(event.relatedTarget)) stop(poster);
    });
  }
}

function posterAt(target) {
  return target instanceof Element ? target.closest("[data-video]") : null;
}

function play(poster) {
  if (!poster || calm.matches || poster.querySelector("video")) return;
  const video = document.createElement("video");
  video.muted = video.loop = video.playsInline = true;
  video.src = poster.dataset.video;
  poster.querySelector(".frame").append(video);
  video.play().catch(() => video.remove()); // it has gone in the meantime, or cannot be played
}

function stop(poster) {
  poster.querySelector("video")?.remove();
}
