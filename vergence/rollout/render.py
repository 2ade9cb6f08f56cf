"""From a scene to what the policy reads: how it is asked, and what it is shown."""

from typing import Literal

from vergence import views
from vergence.models.policy import Reader
from vergence.types import Prompt, Scene, ViewSpec

Ask = Literal["answer", "caption"]
Wording = Literal["short", "think"]

WORDINGS: dict[Wording, dict[Ask, str]] = {
    "short": {"answer": "{question} Answer.", "caption": "{question} Describe."},
    # PAPO's prompt (arXiv:2507.06448, released math_perception.jinja); the request for a caption is ours
    "think": {
        "answer": "{question}\n\nYou first think through the reasoning process as an internal monologue, enclosed "
        "within <think> </think> tags. Then, provide your final answer enclosed within \\boxed{{}}.",
        "caption": "Describe the image in detail, with everything that is needed to answer the following question, "
        "but do not answer it: {question}",
    },
}
"""How a question is put. `short` is the seedling's own; `think` is for instruction-tuned models."""


def render(
    reader: Reader, scene: Scene, show: ViewSpec, key: int, *, ask: Ask = "answer", wording: Wording = "short"
) -> Prompt:
    """The scene's question with its images as this view shows them.

    Args:
        key: of the view's randomness; the same key gives the same pixels.
    """
    images = [views.show(show, image, key, index) for index, image in enumerate(scene.images)]
    return reader.prompt(WORDINGS[wording][ask].format(question=scene.question), images)


def render_text(
    reader: Reader, question: str, caption: str = "", *, ask: Ask = "answer", wording: Wording = "short"
) -> Prompt:
    """The question without an image: after a caption, or alone."""
    asked = WORDINGS[wording][ask].format(question=question)
    return reader.prompt(f"Picture: {caption} {asked}" if caption else asked, [])
