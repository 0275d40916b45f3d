"""The page of ``sam-spl demo``, made with Gradio and served to this computer only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from sam_spl.demo.examples import Example
from sam_spl.demo.look import COLUMNS, Limits, Seen, look, shades, view
from sam_spl.errors import InputError
from sam_spl.predict.predictor import Predictor

_ADDRESS = "127.0.0.1"  # nobody else on the network reaches it
_TITLE = "Small targets in infrared images"
_NOTHING = "Drop an image or a video on the left, or choose an example."
_SESSIONS = 4  # open pages whose maps are kept
_HOUR = 3600  # seconds, after which files that were uploaded and pictures that were shown are deleted


def build(predictor: Predictor, about: str, examples: Sequence[Example], limits: Limits) -> gr.Blocks:
    """The page.

    Args:
        predictor: what predicts. Its threshold is the first one.
        about: which network that is, a line.
        examples: what can be chosen instead of a file.
        limits: what is read of one file.
    """
    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(_HOUR // 6, _HOUR)) as page:
        seen = gr.State(None)
        gr.Markdown(f"## {_TITLE}\n{about}")
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                file = gr.File(label="Image (8 or 16 bits), TIFF stack or video", height=150, elem_id="file")
                gallery = gr.Gallery(
                    [(str(one.picture), one.caption) for one in examples],
                    label="Examples (generated)",
                    columns=2,
                    height=360,
                    allow_preview=False,
                    buttons=[],
                    interactive=False,
                    elem_id="examples",
                )
            with gr.Column(scale=5):
                line = gr.Textbox(_NOTHING, show_label=False, interactive=False, elem_id="line")
                with gr.Row():
                    # PNG: a lossy format would blur targets of a few pixels.
                    overlay = _picture("Overlay", "overlay")
                    prob = _picture("Probability: black 0, white 1", "prob")
                threshold = gr.Slider(
                    0, 1, predictor.threshold, step=0.001, label="Threshold", elem_id="threshold", buttons=[]
                )
                number = _frames(1)
        table = gr.Dataframe(
            headers=list(COLUMNS), datatype="number", interactive=False, label="Detections", elem_id="rows"
        )
        shown = [overlay, table]

        def predict(path: str | None, at: float) -> Iterator[tuple[Any, ...]]:
            nothing = (None, _frames(1), None, None, _rows([]))
            yield *nothing, f"{Path(path).name}: predicting" if path else _NOTHING
            if not path:
                return
            try:
                for found in look(predictor, Path(path), limits):
                    if len(found.predictions) == 1:
                        yield found, _frames(1), shades(found.predictions[0]), *show(found, 1, at), str(found)
                    else:
                        skipped = (gr.skip(), gr.skip(), gr.skip())
                        yield found, _frames(len(found.predictions)), *skipped, str(found)
            except InputError as error:
                yield *nothing, str(error)

        def show(found: Seen | None, frame: int, at: float) -> tuple[Any, ...]:
            if found is None:
                return None, _rows([])
            seen = view(found.predictions[frame - 1], at)
            return seen.overlay, _rows(seen.rows, seen.title)

        def turn(found: Seen | None, frame: int, at: float) -> tuple[Any, ...]:
            return found and shades(found.predictions[frame - 1]), *show(found, frame, at)

        def choose(event: gr.SelectData) -> str:
            return str(examples[event.index].file)

        last: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"}
        run = file.change(
            predict,
            [file, threshold],
            [seen, number, prob, *shown, line],
            trigger_mode="multiple",
            show_progress="hidden",
        )
        file.clear(None, cancels=[run])
        gallery.select(choose, None, file, cancels=[run], show_progress="hidden")
        threshold.change(show, [seen, number, threshold], shown, **last)
        number.input(turn, [seen, number, threshold], [prob, *shown], **last)
    assert isinstance(page, gr.Blocks)
    return page


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for all temporary files of this process, which is removed at the end.

    Gradio keeps what is uploaded and what is shown in a folder that all users share, and leaves it there.
    """
    earlier = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="sam-spl-demo-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = earlier


@contextmanager
def served(page: gr.Blocks, port: int | None = None) -> Iterator[str]:
    """Serve a page to browsers on this computer while the block runs.

    Args:
        page: of :func:`build`.
        port: None takes the first free one from 7860.

    Yields:
        The page's address.

    Raises:
        InputError: the port is taken, or a proxy stands between this computer and itself.
    """
    try:
        _, address, _ = page.launch(
            server_name=_ADDRESS,
            server_port=port,
            share=False,
            inline=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            footer_links=[],
            enable_monitoring=False,
            run_history=False,
            mcp_server=False,
            state_session_capacity=_SESSIONS,
        )
    except OSError as error:
        raise InputError(
            f"port: {port or 'any from 7860 to 7959'} is not free. Choose another with --port."
        ) from error
    except ValueError as error:
        raise InputError(f"demo: {_ADDRESS} cannot be reached. Set NO_PROXY={_ADDRESS}.") from error
    try:
        yield address
    finally:
        page.close(verbose=False)


def _picture(label: str, name: str) -> gr.Image:
    return gr.Image(
        label=label, format="png", interactive=False, buttons=["download", "fullscreen"], elem_id=name
    )


def _frames(count: int) -> gr.Slider:
    """What chooses a frame, where there are several."""
    value = {"value": 1} if count == 1 else {}
    return gr.Slider(
        1,
        max(2, count),
        step=1,
        precision=0,
        label=f"Frame of {count}",
        visible=count > 1,
        buttons=[],
        elem_id="frame",
        **value,
    )


def _rows(rows: list[list[float | int | None]], title: str = "Detections") -> gr.Dataframe:
    return gr.Dataframe(rows, label=title)
