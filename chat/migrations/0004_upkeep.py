from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("chat", "0003_processes")]

    operations = [
        migrations.CreateModel(
            name="Chore",
            fields=[
                ("name", models.CharField(editable=False, max_length=20, primary_key=True, serialize=False)),
                ("begun", models.DateTimeField()),
                ("mark", models.DateTimeField(null=True)),
            ],
        ),
        migrations.AddField(
            model_name="conversation",
            name="deleted",
            field=models.DateTimeField(
                blank=True, editable=False, help_text="Out of sight since then, and gone soon after.", null=True
            ),
        ),
        migrations.AddIndex(
            model_name="conversation",
            index=models.Index(
                condition=models.Q(("deleted__isnull", False)), fields=["deleted"], name="deleted_conversations"
            ),
        ),
    ]
