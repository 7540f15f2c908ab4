"""Bad input: the error names the op, the argument, what it got and what it expected."""

import pytest

import tests.gan_loss.contract as gan_loss
import tests.gaussian.contract as gaussian
import tests.masked_conv2d.contract as masked_conv2d
import tests.row_lstm.contract as row_lstm

FAMILIES = (gaussian, gan_loss, masked_conv2d, row_lstm)


@pytest.mark.parametrize("call, error, text", [case for op in FAMILIES for case in op.ERRORS])
def test_errors_name_op_argument_and_value(call, error, text):
    with pytest.raises(error, match=text):
        call()
