"""What storage refuses is told as what it is, whichever client was refused."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from obstore.exceptions import GenericError, PermissionDeniedError

from jobs.errors import ArchivedObjectError, CredentialsError, DeniedError, EncryptionError, RefusedError
from jobs.storage import Access, translate_error

KINDS = [
    ("AccessDenied", DeniedError, r"the credentials lack the permission s3:GetObject"),
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


@pytest.mark.parametrize(
    ("uri", "needs", "permission"),
    [
        ("s3://b/k", "write", "the permission s3:PutObject"),
        ("s3://b/k", "list", "the permission s3:ListBucket"),
        ("s3://b/k", "delete", "the permission s3:DeleteObject"),
        ("gs://b/k", "read", "the permission storage.objects.get"),
        ("az://c/k", "write", "the role Storage Blob Data Contributor"),
    ],
)
def test_a_denial_names_the_permission_that_the_access_needs(uri: str, needs: Access, permission: str) -> None:
    found = translate_error(from_obstore("AccessDenied", "Access Denied"), uri, needs=needs)
    assert str(found).startswith(f"access to {uri} was denied: the credentials lack {permission}")


def test_a_local_denial_speaks_of_the_user() -> None:
    found = translate_error(PermissionError(13, "Permission denied"), "file:///k", needs="write")
    assert str(found) == "access to file:///k was denied: this user lacks the permission to write"


def test_obstore_without_credentials_says_so() -> None:
    error = GenericError("Generic S3 error: ValueError: Received None from session.get_credentials")
    with pytest.raises(CredentialsError, match="no credentials found for s3://b/k: set the AWS_"):
        raise translate_error(error, "s3://b/k")


def test_a_denial_by_aws_names_the_permission_that_aws_names() -> None:
    said = "User: arn:aws:iam::1:user/x is not authorized to perform: s3:GetObjectVersion on resource: arn:aws:s3:::b/k"
    assert "lack the permission s3:GetObjectVersion" in str(
        translate_error(from_boto("AccessDenied", said), "s3://b/k")
    )
