"""lqo-mor: model order reduction of linear-quadratic-output systems and of the deep networks made of them."""
