"""The table of the site's addresses."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.templatetags.static import static
from django.urls import include, path

from chat.accounts.attempts import limited


def favicon(request: HttpRequest) -> HttpResponse:
    """For what has no page of ours around it: the admin, an export, an error."""
    return redirect(static("chat/icon.svg"))


urlpatterns = [
    path("favicon.ico", favicon),
    path("admin/login/", limited()(admin.site.login)),
    path("admin/", admin.site.urls),
    path("", include("chat.urls")),
]
