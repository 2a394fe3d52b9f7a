"""Mistakes that type checkers find: one in each line that says so, none elsewhere."""

import dualgrad as dg


@dg.function
def scaled(x: dg.Tensor, factor: float = 2.0) -> dg.Tensor:
    return x * factor


def main(x: dg.Tensor) -> None:
    scaled("x")  # mistake
    scaled(x, 1.0, 2.0)  # mistake
    scaled(x, faktor=1.0)  # mistake
    scaled(x).no_such_method()  # mistake
    dg.no_such_function(x)  # mistake
    x.sum().reshap(2)  # mistake
    dg.softmax(x, axis="rows")  # mistake
    print(dg.linalg.svd(x).V)  # mistake
    y: int = dg.exp(x)  # mistake
    print(y, scaled(x, factor=1.0))
