"""Bad input: the error names the op, the argument, what it got and what it expected."""

import pytest
import test_gan_loss_contract as gan_loss
import test_gaussian_contract as gaussian
import test_masked_conv2d_contract as masked_conv2d
import test_row_lstm_contract as row_lstm

FAMILIES = (gaussian, gan_loss, masked_conv2d, row_lstm)


@pytest.mark.parametrize("call, error, text", [case for op in FAMILIES for case in op.ERRORS])
def test_errors_name_op_argument_and_value(call, error, text):
    with pytest.raises(error, match=text):
        call()
