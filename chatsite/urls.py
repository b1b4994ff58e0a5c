"""Lists the addresses of the site."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.templatetags.static import static
from django.urls import include, path

from chat.accounts.attempts import limited


def favicon(request: HttpRequest) -> HttpResponse:
    """Redirect to the icon, for pages that are not ours: the admin, an export, an error."""
    return redirect(static("chat/icon.svg"))


urlpatterns = [
    path("favicon.ico", favicon),
    path("admin/login/", limited()(admin.site.login)),
    path("admin/", admin.site.urls),
    path("", include("chat.urls")),
]

handler400 = "chat.failures.bad_request"
handler403 = "chat.failures.permission_denied"
handler404 = "chat.failures.not_found"
handler500 = "chat.failures.server_error"
