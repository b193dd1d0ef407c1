"""What storage refuses is told as what it is, whichever client was refused."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from obstore.exceptions import PermissionDeniedError

from jobs.errors import ArchivedObjectError, DeniedError, EncryptionError, RefusedError
from jobs.storage import translate_error

KINDS = [
    ("AccessDenied", DeniedError, "the credentials lack the permission"),
    ("InvalidObjectState", ArchivedObjectError, r"is archived \(InvalidObjectState\): restore it"),
    ("KMS.DisabledException", EncryptionError, r"KMS key that cannot be used \(KMS\.DisabledException\): it said why"),
    ("KMS.NotFoundException", EncryptionError, r"\(KMS\.NotFoundException\)"),
    ("InvalidPayer", RefusedError, r"refuses s3://b/k \(InvalidPayer\): it said why"),
    ("AccountProblem", RefusedError, r"\(AccountProblem\)"),
]


def from_boto(code: str, message: str) -> Exception:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    return ClientError(answer, "GetObject")  # type: ignore[arg-type]


def from_obstore(code: str, message: str) -> Exception:
    return PermissionDeniedError(
        "The operation lacked the necessary privileges to complete for path k: Server returned non-2xx status code: "
        f"403 Forbidden: <?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )


def from_pyarrow(code: str, message: str) -> Exception:
    return OSError(
        f"When reading information for key 'k' in bucket 'b': AWS Error UNKNOWN (HTTP status 403) during GetObject "
        f"operation: Unable to parse ExceptionName: {code} Message: {message}"
    )


@pytest.mark.parametrize("client", [from_boto, from_obstore, from_pyarrow])
@pytest.mark.parametrize(("code", "kind", "said"), KINDS)
def test_a_refusal_says_its_reason(client: object, code: str, kind: type[Exception], said: str) -> None:
    found = translate_error(client(code, "it said why"), "s3://b/k")  # type: ignore[operator]
    assert type(found) is kind
    with pytest.raises(kind, match=said):
        raise found
    assert ("permission" in str(found)) == (kind is DeniedError)


def test_a_lack_of_the_right_to_a_key_names_the_key() -> None:
    said = "User: arn:aws:iam::1:user/x is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:eu:1:key/2"
    found = translate_error(from_obstore("AccessDenied", said), "s3://b/k")
    assert isinstance(found, EncryptionError)
    assert "kms:Decrypt" in str(found)


def test_a_refusal_without_a_reason_says_so() -> None:
    answer = {"Error": {"Code": "403", "Message": "Forbidden"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    found = translate_error(ClientError(answer, "HeadObject"), "s3://b/k")  # type: ignore[arg-type]
    assert isinstance(found, DeniedError)
    assert "no reason given" in str(found)
